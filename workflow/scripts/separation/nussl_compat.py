"""nussl 1.1.9 and scaper 1.6.5, patched for current libraries.

No other module imports them: use ``from separation.nussl_compat import nussl`` and
``from separation.nussl_compat import scaper``. Each is imported on first use, so a job that only mixes does not wait
for torch. Every patch is a function whose docstring names what breaks, the lines in the wheel, and why the patch is
right. A patch replaces a name in the module that looks it up, never in numpy, scipy, librosa or torch themselves: other
code in the process sees those libraries unchanged.

nussl and scaper use pysox and the ``sox`` program where soxbindings is missing; that needs no patch.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import importlib.util
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nussl
    import scaper

__all__ = ["nussl", "scaper"]


class _Overlay(types.ModuleType):
    """A module with a few names replaced; all others are looked up in the module itself on use."""

    def __init__(self, module: types.ModuleType, **names: Any):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _ImportedOnUse(types.ModuleType):
    """Placeholder for a module, which is imported when one of its names is used; it has `names` from the start."""

    def __init__(self, name: str, **names: Any):
        super().__init__(name)
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # read by the import machinery and by `inspect`, which do not use the module
            raise AttributeError(name)
        return getattr(_import(self.__name__), name)


def _called_on_use(module: str, name: str) -> Callable[..., Any]:
    """A function that imports a function or class of a module when it is called, and calls it."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    call.__name__ = name
    return call


@contextlib.contextmanager
def _imported_on_use(package: str, modules: Mapping[str, Collection[str]]) -> Iterator[None]:
    """Inside the block, the code of `package` gets a placeholder where it imports one of `modules`.

    All other code, also in other threads, imports as always.

    Args:
        package: Name of a package that is imported inside the block.
        modules: For each module to be imported on use, the functions and classes of it that `package` needs to have
            while it is imported, but does not call.
    """
    original = builtins.__import__

    def import_(name, globals=None, locals=None, fromlist=(), level=0):
        importing = (globals or {}).get("__name__") or ""
        if importing == package or importing.startswith(f"{package}."):
            absolute = importlib.util.resolve_name("." * level + name, globals["__package__"]) if level else name
            if absolute in modules:
                return placeholder(absolute) if fromlist else first_package(absolute)
            if {f"{absolute}.{item}" for item in fromlist or ()} & set(modules):  # submodules
                return types.SimpleNamespace(**{item: placeholder(f"{absolute}.{item}") for item in fromlist})
        return original(name, globals, locals, fromlist, level)

    def placeholder(module: str) -> types.ModuleType:
        return _ImportedOnUse(module, **{name: _called_on_use(module, name) for name in modules[module]})

    def first_package(module: str) -> types.ModuleType:
        """The value of `import a.b`, which is a, with b as an attribute."""
        found = placeholder(module)
        while "." in found.__name__:
            parent, _, child = found.__name__.rpartition(".")
            found = _ImportedOnUse(parent, **{child: found})
        return found

    builtins.__import__ = import_
    try:
        yield
    finally:
        builtins.__import__ = original


def _looked_up_on_use(module: types.ModuleType, names: Mapping[str, str]) -> None:
    """Replaces placeholders among the attributes of a module by the originals, which are imported on first access.

    Args:
        module: A module whose own code does not use the names.
        names: Name of the attribute, and the module that it comes from, or that it is.
    """

    def __getattr__(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        origin = importlib.import_module(names[name])
        found = origin if origin.__name__ == f"{module.__name__}.{name}" else getattr(origin, name)
        setattr(module, name, found)
        return found

    public = sorted(name for name in {*vars(module), *names} if not name.startswith("_"))
    for name in names:
        vars(module).pop(name, None)
    module.__getattr__ = __getattr__
    module.__dir__ = lambda: sorted({*vars(module), *names})
    module.__all__ = public


# ---------------------------------------------------------------- while nussl is imported


#: What nussl imports and most jobs never use. museval is BSSEvalV4's (evaluation/bss_eval.py:197), musdb
#: datasets.MUSDB18's (datasets/hooks.py:69), jams datasets.Scaper's and OnTheFly's (datasets/hooks.py:312,466), pandas
#: report_card's, zarr the Cache's, gpytorch GaussianMixtureTorch's (ml/unfold/gaussian_mixture.py:97), pyloudnorm
#: AudioSignal.loudness's; scikit-learn belongs to clustering, ICA, NMF, confidence measures and PrecisionRecallFScore.
_SELDOM_USED = {
    "musdb": (),
    "museval": (),
    "jams": (),
    "pandas": (),
    "zarr": (),
    "numcodecs": ("blosc",),  # sets an attribute of it (datasets/transforms.py:17): see patch_cache
    "gpytorch": (),
    "pyloudnorm": (),
    "norbert": (),
    "ffmpeg": (),
    "sklearn": (),
    "sklearn.cluster": ("KMeans", "MiniBatchKMeans"),
    "sklearn.decomposition": ("NMF",),
    "sklearn.metrics": ("silhouette_samples",),
    "sklearn.mixture": ("GaussianMixture",),
    "sklearn.preprocessing": ("OneHotEncoder",),
    "scipy.fftpack": (),
    "scipy.io.wavfile": (),
    "scipy.ndimage": ("gaussian_filter", "maximum_filter"),
    "scipy.special": ("logsumexp",),
}


def seldom_used_modules_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """nussl imports other libraries that take seconds in every job, and uses them inside functions only."""
    return _imported_on_use("nussl", _SELDOM_USED)


def scipy_signal_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """scipy >= 1.13 has no ``scipy.signal.{hamming,hann,blackman}`` (nussl core/constants.py:27,29,30).

    constants.py reads only their ``__name__``, once, on import. The placeholder for scipy.signal, whose import takes
    as long as half of torch's, has functions of these names. It is imported by the first STFT.
    """
    return _imported_on_use("nussl", {"scipy.signal": ("hamming", "hann", "blackman", "check_COLA")})


#: functions of FT2D and Melodia (separation/primitive/ft2d.py:2, melodia.py:2)
_SCIPY_NDIMAGE_FILTERS = {
    "nussl.separation.primitive.ft2d": ("maximum_filter", "minimum_filter", "uniform_filter"),
    "nussl.separation.primitive.melodia": ("convolve",),
}


def scipy_ndimage_filters_not_imported() -> contextlib.AbstractContextManager[None]:
    """``scipy.ndimage.filters`` works and warns; users of this workflow cannot act on it.

    See `patch_scipy_ndimage_filters`.
    """
    names = {name for functions in _SCIPY_NDIMAGE_FILTERS.values() for name in functions}
    return _imported_on_use("nussl", {"scipy.ndimage.filters": names})


#: attributes of nussl.ml.train that come from its trainer
_TRAINER_NAMES = (
    "create_train_and_validation_engines",
    "add_tensorboard_handler",
    "cache_dataset",
    "add_validate_and_checkpoint",
    "add_stdout_handler",
    "add_progress_bar_handler",
    "ValidationEvents",
    "BackwardsEvents",
)


def trainer_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """nussl's trainer imports ignite, tensorboard and torch.distributed.optim, and derives classes from ignite's.

    This workflow trains without it. Of nussl itself only ml/train/__init__.py and closures.py import it.
    """
    return _imported_on_use("nussl", {"nussl.ml.train.trainer": _TRAINER_NAMES, "nussl.ml.train.closures": ()})


def stempeg_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """``import stempeg`` raises RuntimeError where ffmpeg is missing, and with it ``import musdb``.

    stempeg reads and writes the .stem.mp4 files of MUSDB18, and musdb uses it inside functions only
    (audio_classes.py:52,100,161, __init__.py:332, tools.py:46,52). It is imported when one of them runs, and its error
    about ffmpeg appears there.
    """
    return _imported_on_use("musdb", {"stempeg": ()})


@contextlib.contextmanager
def scipy_ndimage_warning_hidden() -> Iterator[None]:
    """norbert, which WienerFilter uses, imports from ``scipy.ndimage.filters`` too (norbert/contrib.py:3).

    All other warnings of the import are shown.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*`scipy\.ndimage\.filters` namespace", DeprecationWarning)
        yield


def pyloudnorm_filtering_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """pyloudnorm filters with scipy.signal; this workflow takes the coefficients of its meter and filters itself."""
    return _imported_on_use("pyloudnorm", {"scipy.signal": ()})


def _import(name: str) -> types.ModuleType:
    """Imports a module that nussl or scaper gets on use."""
    with (
        stempeg_imported_on_use(),
        pyloudnorm_filtering_imported_on_use(),
        scipy_ndimage_warning_hidden() if name == "norbert" else contextlib.nullcontext(),
    ):
        module = importlib.import_module(name)
    if name in ("musdb", "museval"):  # museval imports musdb
        patch_musdb_wav_files(sys.modules["musdb"])
    return module


def jams_and_pyloudnorm_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """scaper imports jams, and with it pandas, mir_eval and scipy.stats: longer than torch.

    It uses jams and pyloudnorm in functions that read, write or generate whole soundscapes, which this workflow
    replaces (scaper/core.py:164,250,347,1699-1763, audio.py:50).
    """
    return _imported_on_use("scaper", {"jams": (), "pyloudnorm": ()})


# ---------------------------------------------------------------- after nussl is imported


def show_originals_on_use(nussl: types.ModuleType) -> None:
    """The public attributes of nussl that come from a module imported on use are the originals, not placeholders."""
    trainer, closures = "nussl.ml.train.trainer", "nussl.ml.train.closures"
    _looked_up_on_use(
        nussl.ml.train, {**dict.fromkeys(_TRAINER_NAMES, trainer), "trainer": trainer, "closures": closures}
    )
    clusterers = {
        "KMeans": "sklearn.cluster",
        "MiniBatchKMeans": "sklearn.cluster",
        "GaussianMixture": "sklearn.mixture",
    }
    _looked_up_on_use(nussl.ml.cluster, clusterers)
    _looked_up_on_use(nussl.ml, {"NMF": "sklearn.decomposition"})


def patch_scipy_ndimage_filters(nussl: types.ModuleType) -> None:
    """The functions that ``scipy.ndimage.filters`` had are taken from ``scipy.ndimage``, where they are the same."""
    for module, names in _SCIPY_NDIMAGE_FILTERS.items():
        for name in names:
            setattr(importlib.import_module(module), name, _called_on_use("scipy.ndimage", name))


def patch_librosa_arguments(nussl: types.ModuleType) -> None:
    """librosa >= 0.10 takes by keyword what nussl passes by position.

    That is ``resample`` (core/audio_signal.py:1491), ``feature.rms`` (core/audio_signal.py:1434) and ``filters.mel``
    (ml/networks/modules/blocks.py:270). The replacements pass the arguments on by name. `rms` pads by reflection, as
    nussl's own test expects: librosa's zero padding makes the first and last window quieter. The default resampler is
    librosa's current one (soxr_hq, formerly kaiser_best); a `res_type` is passed on.
    """
    import librosa

    def resample(y, orig_sr, target_sr, **options):
        return librosa.resample(y, orig_sr=orig_sr, target_sr=target_sr, **options)

    def rms(y, **options):
        return librosa.feature.rms(y=y, **{"pad_mode": "reflect", **options})

    def mel(sr, n_fft, n_mels, **options):
        return librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, **options)

    # not overlays: access to librosa.feature or librosa.filters imports them, which takes a second
    feature, filters = types.ModuleType("librosa.feature"), types.ModuleType("librosa.filters")
    feature.rms, filters.mel = rms, mel
    audio_signal = importlib.import_module("nussl.core.audio_signal")
    audio_signal.librosa = _Overlay(librosa, resample=resample, feature=feature)
    blocks = importlib.import_module("nussl.ml.networks.modules.blocks")
    blocks.librosa = _Overlay(librosa, filters=filters)


def patch_overlap_check(nussl: types.ModuleType) -> None:
    """`AudioSignal.stft_params` calls scipy's check_COLA and ignores the answer (core/audio_signal.py:508).

    What is left of it are errors of unknown windows and of hops that do not fit; common windows need no scipy.signal.
    """
    audio_signal = importlib.import_module("nussl.core.audio_signal")
    check_cola = audio_signal.check_COLA

    def check_COLA(window, nperseg, noverlap):
        if window not in ("hann", "hamming", "blackman") or not 0 <= noverlap < nperseg:
            check_cola(window, nperseg, noverlap)

    audio_signal.check_COLA = check_COLA


def patch_model_loading(nussl: types.ModuleType) -> None:
    """torch >= 2.6 loads with ``weights_only=True`` and refuses nussl's checkpoints (core/migration.py:81).

    They hold pickled metadata (STFTParams, the transforms of the datasets). ``weights_only=False`` applies to this one
    call, the only `torch.load` in nussl. Unpickling can run code: load only trusted files.
    """
    import torch

    migration = importlib.import_module("nussl.core.migration")
    migration.torch = _Overlay(torch, load=functools.partial(torch.load, weights_only=False))


def patch_duet(nussl: types.ModuleType) -> None:
    """numpy >= 2.0 has no ``np.mat``, an alias of ``np.asmatrix`` (separation/spatial/duet.py:227,364)."""
    import numpy

    importlib.import_module("nussl.separation.spatial.duet").np = _Overlay(numpy, mat=numpy.asmatrix)


def patch_hanning_window(nussl: types.ModuleType) -> None:
    """scipy (1.17) has no window 'hanning', OverlapAdd's default (separation/composite/overlap_add.py:7,83).

    It was an alias of 'hann' in ``scipy.signal.get_window``, which nussl calls in `AudioSignal.get_window` only.
    """
    get_window = nussl.AudioSignal.get_window

    @functools.wraps(get_window)
    def get_window_by_current_name(window_type, window_length):
        return get_window("hann" if window_type == "hanning" else window_type, window_length)

    nussl.AudioSignal.get_window = staticmethod(get_window_by_current_name)


def patch_report_card(nussl: types.ModuleType) -> None:
    """pandas >= 2.0 raises in mean, std and median of the columns 'source' and 'file' (evaluation/report_card.py).

    Those are lines 83, 87 and 107. pandas 1 skipped columns that are not numeric. Here they are removed before nussl's
    functions get the table, so that the labels, which nussl takes from the column names, match the values too.
    """

    def of_number_columns(summary):
        @functools.wraps(summary)
        def summary_of_number_columns(df, decs=2):
            return summary(df.select_dtypes(include="number"), decs=decs)

        return summary_of_number_columns

    module = sys.modules["nussl.evaluation.report_card"]  # the function of that name hides it in nussl.evaluation
    module._get_mean_and_std = of_number_columns(module._get_mean_and_std)
    module._get_medians = of_number_columns(module._get_medians)


class PickledItems:
    """A zarr array with one pickled object per chunk, as nussl's Cache used it with zarr 2.

    Args:
        array: One-dimensional zarr array of variable-length bytes; empty bytes are an item that was never written.
    """

    def __init__(self, array: Any):
        self.array = array

    @property
    def info(self) -> Any:
        return self.array.info

    @property
    def nchunks_initialized(self) -> int:
        """Number of items written so far; nussl's users compare it with the size of the dataset."""
        return self.array.nchunks_initialized

    def __setitem__(self, index: int, item: Any) -> None:
        import numpy

        pickled = numpy.empty(1, dtype=object)
        pickled[0] = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        self.array[index : index + 1] = pickled

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.array.shape[0]:
            raise IndexError(f"item {index} of a cache of {self.array.shape[0]} items")
        pickled = self.array[index : index + 1][0]
        return pickle.loads(pickled) if pickled else None


def patch_cache(nussl: types.ModuleType) -> None:
    """zarr 3 has no object arrays, ``object_codec`` or ``ThreadSynchronizer`` (datasets/transforms.py:646-654).

    The items are pickled and stored as byte strings in the same format (zarr format 2, one item per chunk, the same
    compressor). The synchronizer prevented two threads from writing to the same chunk; one item per chunk does so too.
    Nothing else of nussl's Cache changes: with ``overwrite=True`` it still empties its folder. Like the original it
    unpickles files: open only trusted caches.
    """

    def _open_cache(self, location):
        import numcodecs
        import numcodecs.blosc
        import zarr

        numcodecs.blosc.use_threads = False
        if self.overwrite:
            array = zarr.create_array(
                location,
                shape=(self.cache_size,),
                chunks=(1,),
                dtype=zarr.dtype.VariableLengthBytes(),
                compressors=numcodecs.Blosc(),
                zarr_format=2,
                overwrite=True,
            )
            self.cache = PickledItems(array)
        elif os.path.exists(location):
            self.cache = PickledItems(zarr.open_array(location, mode="r"))

    nussl.datasets.transforms.Cache._open_cache = _open_cache
    del nussl.datasets.transforms.numcodecs.blosc


# ---------------------------------------------------------------- after scaper is imported


def patch_scaper_infinity(scaper: types.ModuleType) -> None:
    """numpy >= 2.0 has no ``np.Inf``, an alias of ``np.inf`` (scaper/core.py:1489,1512,1562,1598)."""
    import numpy

    scaper.core.np = _Overlay(numpy, Inf=numpy.inf)


def cache_source_headers(scaper: types.ModuleType) -> None:
    """scaper opens the source file of every event for its duration (scaper/core.py:1474).

    The duration is cached until the file's time or size changes.
    """
    import soundfile

    @functools.lru_cache(maxsize=65536)
    def cached(path: str, time: int, size: int) -> Any:
        return soundfile.info(path)

    def info(path: str) -> Any:
        found = os.stat(path)
        return cached(path, found.st_mtime_ns, found.st_size)

    scaper.core.soundfile = _Overlay(soundfile, info=info)


class _WavInfo:
    """The part of stempeg.Info that musdb uses, for a WAV file read by soundfile."""

    def __init__(self, info: Any):
        self._info = info

    def samples(self, _stem: int | None) -> int:
        return self._info.frames

    def duration(self, _stem: int | None) -> float:
        return self._info.duration

    def rate(self, _stem: int | None) -> int:
        return self._info.samplerate


def patch_musdb_wav_files(musdb: types.ModuleType) -> None:
    """musdb reads the WAV files of MUSDB18-HQ through stempeg and ffmpeg, to 16 bits (audio_classes.py:52,100).

    soundfile needs neither and reads them at full bit depth. Other files, and WAV files to be resampled by musdb, are
    still read by stempeg.
    """
    import soundfile

    classes = musdb.audio_classes
    if isinstance(classes.stempeg, _Overlay):
        return
    stempeg = classes.stempeg

    def describe(path: str) -> Any:
        return _WavInfo(soundfile.info(path)) if str(path).endswith(".wav") else stempeg.Info(path)

    def read_stems(filename: str, start: float = 0, duration: float | None = None, **options: Any) -> tuple[Any, int]:
        if not isinstance(options.get("info"), _WavInfo) or options.get("sample_rate"):
            return stempeg.read_stems(filename=filename, start=start, duration=duration, **options)
        with soundfile.SoundFile(filename) as file:
            file.seek(round(start * file.samplerate))
            frames = -1 if duration is None else round(duration * file.samplerate)
            return file.read(frames, always_2d=True), file.samplerate

    classes.stempeg = _Overlay(stempeg, Info=describe, read_stems=read_stems)


# ---------------------------------------------------------------- importing


def _import_nussl() -> types.ModuleType:
    with (
        seldom_used_modules_imported_on_use(),
        scipy_signal_imported_on_use(),
        scipy_ndimage_filters_not_imported(),
        trainer_imported_on_use(),
    ):
        nussl = importlib.import_module("nussl")
    show_originals_on_use(nussl)
    patch_scipy_ndimage_filters(nussl)
    patch_librosa_arguments(nussl)
    patch_overlap_check(nussl)
    patch_model_loading(nussl)
    patch_duet(nussl)
    patch_hanning_window(nussl)
    patch_report_card(nussl)
    patch_cache(nussl)
    return nussl


def _import_scaper() -> types.ModuleType:
    with jams_and_pyloudnorm_imported_on_use():
        scaper = importlib.import_module("scaper")
    patch_scaper_infinity(scaper)
    cache_source_headers(scaper)
    return scaper


_IMPORTERS = {"nussl": _import_nussl, "scaper": _import_scaper}


def __getattr__(name: str) -> types.ModuleType:
    """Imports and patches `nussl` or `scaper` on first use.

    Raises:
        ImportError: It was imported unpatched before, or a patch does not fit the installed version.
    """
    if name not in _IMPORTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in sys.modules:
        raise ImportError(
            f"{name} was imported before separation.nussl_compat could patch it; "
            f"import it only by `from separation.nussl_compat import {name}`"
        )
    try:
        module = _IMPORTERS[name]()
    except AttributeError as error:  # from here it would read as "cannot import name", without its cause
        raise ImportError(f"cannot patch {name}; the patches are for nussl 1.1.9 and scaper 1.6.5: {error}") from error
    globals()[name] = module
    return module
