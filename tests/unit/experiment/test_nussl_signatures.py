"""Tables of nussl's signatures match the installed nussl."""

import inspect

from separation.experiment import nussl_signatures
from separation.nussl_compat import nussl


def arguments(kind):
    signature = inspect.signature(kind.__init__)
    return [
        name
        for name, parameter in signature.parameters.items()
        if name != "self" and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]


def test_arguments_of_modules_match_the_table():
    modules = nussl.ml.networks.modules
    for name, known in nussl_signatures.MODULES.items():
        assert list(known) == arguments(getattr(modules, name)), name
    found = {name: getattr(modules, name) for name in dir(modules)}
    # others may be registered with nussl
    classes = {name for name, kind in found.items() if inspect.isclass(kind) and kind.__module__.startswith("nussl.")}
    assert classes == set(nussl_signatures.MODULES)


def test_modules_that_forward_arguments_match_the_table():
    for name in nussl_signatures.MODULES:
        kinds = {
            parameter.kind
            for parameter in inspect.signature(getattr(nussl.ml.networks.modules, name).__init__).parameters.values()
        }
        opens = inspect.Parameter.VAR_KEYWORD in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds
        assert opens == (name in nussl_signatures.FORWARDED_ARGUMENTS), name


def test_inputs_of_losses_match_the_table():
    for name, keys in nussl_signatures.LOSSES.items():
        assert list(getattr(nussl.ml.train.loss, name).DEFAULT_KEYS) == list(keys), name


def test_arguments_of_algorithms_match_the_table():
    for name, known in nussl_signatures.ALGORITHMS.items():
        taken = {
            argument
            for kind in getattr(nussl.separation.deep, name).__mro__[:-1]
            if "__init__" in vars(kind)
            for argument in arguments(kind)
        }
        assert taken - {"input_audio_signal"} <= set(known), name


def test_arguments_of_datasets_match_the_table():
    classes = {
        name: kind
        for name, kind in vars(nussl.datasets).items()
        if inspect.isclass(kind)
        and issubclass(kind, nussl.datasets.BaseDataset)
        and kind not in (nussl.datasets.BaseDataset, nussl.datasets.OnTheFly)
    }
    assert set(nussl_signatures.DATASETS) == set(classes)
    for name, known in nussl_signatures.DATASETS.items():
        taken = {argument for kind in classes[name].__mro__ if "__init__" in vars(kind) for argument in arguments(kind)}
        assert set(known) <= taken, name
