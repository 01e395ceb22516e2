"""Reproducible separation with nussl's algorithms."""

from __future__ import annotations

import inspect
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from separation.data.items import Item
from separation.errors import UserError, nearest
from separation.evaluation.global_seed import global_numpy_seed
from separation.experiment.ids import seed_from_text
from separation.experiment.options import EvaluationOptions


class Separator:
    """A separation algorithm of nussl, set up once for many items.

    Args:
        options: Class of nussl.separation.deep (or another subpackage of nussl.separation) and its arguments.
            `model_path` and `device` are filled in, and `num_sources` if missing.
        item: Any item of the data, for the setup.
        checkpoint: Model file, for algorithms that take one.
        device: cpu, cuda, or auto.
        seed: Determines, with the item's name, every random choice of the algorithm (initial cluster centres).
            `random_state` among the args overrides it.

    Raises:
        UserError: An unknown class, arguments that it does not accept, a missing or unsuitable checkpoint.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        item: Item,
        *,
        checkpoint: Path | None = None,
        device: str = "cpu",
        seed: int = 0,
    ):
        # torch takes seconds to import, and reading scores does not need it
        from separation.machine.torch_device import find_device
        from separation.nussl_compat import nussl

        name = options.class_
        algorithm_class = _find_algorithm(nussl, name)
        args = dict(options.args)
        own_seed = args.pop("random_state", None)
        self._seed = seed if own_seed is None else own_seed
        parameters = inspect.signature(algorithm_class.__init__).parameters
        if "model_path" in parameters:
            if checkpoint is None or not Path(checkpoint).is_file():
                raise UserError("expected a trained model, found no file", file=checkpoint, key="algorithm_config")
            args.update(model_path=str(checkpoint), device=str(find_device(device)))
        if "num_sources" in parameters:
            args.setdefault("num_sources", len(item.sources))
        try:
            self._algorithm = algorithm_class(item.mixture, **args)
        except _failures(nussl) as error:
            raise UserError(
                f"nussl's {name} cannot be set up with {args}: {error!r}", key="algorithm_config"
            ) from error
        trained_at = self._algorithm.metadata.get("sample_rate")
        if isinstance(trained_at, int) and trained_at != item.mixture.sample_rate:
            raise UserError(
                f"the model expects {trained_at} Hz, the data have {item.mixture.sample_rate} Hz", file=checkpoint
            )
        self._deep = None
        if "model_path" in parameters:
            from separation.evaluation.batched import DeepSeparation

            self._deep = DeepSeparation(self._algorithm) if DeepSeparation.fits(self._algorithm) else None
        self._clusters = isinstance(self._algorithm, nussl.separation.base.ClusteringSeparationBase)
        if self._clusters and self._algorithm.fit_clusterer:
            from separation.evaluation.clustering import with_several_draws

            self._algorithm.clusterer = with_several_draws(self._algorithm.clusterer)
        self._pools = ThreadpoolController()
        self._alone = threading.Lock()

    @property
    def network(self) -> Any:
        """The torch module that separates, on its device; None for algorithms without one."""
        return getattr(self._algorithm, "model", None)

    def __call__(self, item: Item) -> list[np.ndarray]:
        """The estimates of one item in the algorithm's order, each (channels, samples) like the mixture.

        Estimates that come of NaN or infinite outputs of a network are NaN.

        Raises:
            UserError: The algorithm needs another kind of model.
        """
        return self.estimates(item, self.outputs([item])[0])

    def outputs(self, items: Sequence[Item]) -> list[Any]:
        """The network's output for some items; one batch for nussl's own deep algorithms.

        Raises:
            UserError: As in `__call__`.
        """
        return [None] * len(items) if self._deep is None else self._deep.outputs(items)

    @property
    def batches(self) -> bool:
        """Whether `outputs` runs the network, instead of `estimates`."""
        return self._deep is not None

    def estimates(self, item: Item, output: Any) -> list[np.ndarray]:
        """The estimates of one item from its output; safe to call from several threads."""
        seed = item_seed(self._seed, item.name)
        if self._deep is not None:
            return self._deep.estimates(item, output, seed)
        with self._alone:
            return self._run(item, seed)

    def _run(self, item: Item, seed: int) -> list[np.ndarray]:
        from separation.nussl_compat import nussl

        algorithm = self._algorithm
        with global_numpy_seed(seed):
            algorithm.audio_signal = item.mixture
            try:
                if self._clusters:
                    algorithm.clusterer.random_state = seed
                    features = algorithm.extract_features()
                    if not np.isfinite(features).all():
                        # clustering fails on them; such estimates have no scores
                        return [np.full(item.mixture.audio_data.shape, np.nan)] * algorithm.num_sources
                    # k-means sums over threads in the order in which they finish: one thread is reproducible
                    with self._pools.limit(limits=1):
                        algorithm.run(features=features)
                else:
                    algorithm.run()
            except nussl.separation.base.SeparationException as error:
                raise UserError(f"{type(algorithm).__name__}: {error}", key="algorithm_config.class") from error
            return [estimate.audio_data for estimate in algorithm.make_audio_signals()]


def item_seed(seed: int, name: str) -> int:
    """A 32-bit seed for one item, independent of the other items and their order."""
    return seed_from_text(f"{seed}:{name}")


def _failures(nussl: Any) -> tuple[type[Exception], ...]:
    """The exceptions of an algorithm whose arguments or model file are wrong."""
    unfit = (TypeError, ValueError, AssertionError, nussl.separation.base.SeparationException)
    unreadable = (RuntimeError, KeyError, EOFError, pickle.UnpicklingError)
    return unfit + unreadable


def _find_algorithm(nussl: Any, name: str) -> type:
    from separation.training.user_modules import USER_ALGORITHMS

    packages = (nussl.separation.deep, nussl.separation.primitive, nussl.separation.factorization)
    packages += (nussl.separation.spatial, nussl.separation.composite, nussl.separation.benchmark)
    known = {
        key: member
        for package in reversed(packages)
        for key, member in vars(package).items()
        if isinstance(member, type) and issubclass(member, nussl.separation.base.SeparationBase)
    }
    known |= USER_ALGORITHMS
    if name not in known:
        raise UserError(
            "expected a class of nussl.separation such as DeepClustering or DeepMaskEstimation, "
            f"found {name!r}{nearest(name, known)}",
            key="algorithm_config.class",
        )
    return known[name]
