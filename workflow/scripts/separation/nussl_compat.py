"""nussl 1.1.9 and scaper 1.6.5, patched for current libraries.

No other module imports them: use ``from separation.nussl_compat import nussl`` and
``from separation.nussl_compat import scaper``. Each is imported on first use, so a job that only mixes does not wait
for torch. Every patch is a function whose docstring names what breaks, the lines in the wheel, and why the patch is
right. A patch replaces a name in the module that looks it up, never in numpy, scipy, librosa or torch themselves: other
code in the process sees those libraries unchanged.

nussl and scaper use pysox and the ``sox`` program where soxbindings is missing; that needs no patch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pickle
import sys
import types
import warnings
from collections.abc import Callable, Iterator
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
    """Placeholder for a module, which is imported when one of its names is used."""

    def __init__(self, name: str, importer: Callable[[str], types.ModuleType]):
        super().__init__(name)
        self._importer = importer

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # read by the import machinery and by `inspect`, which do not use the module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(self._importer(self.__name__), name)


@contextlib.contextmanager
def _imported_on_use(
    module: str, importer: Callable[[str], types.ModuleType] = importlib.import_module, **names: Any
) -> Iterator[None]:
    """Inside the block, importing a module returns a placeholder that has `names` from the start.

    After the block, importing the module returns the module itself.
    """
    if module in sys.modules:
        yield
        return
    placeholder = sys.modules[module] = _ImportedOnUse(module, importer)
    placeholder.__dict__.update(names)
    try:
        yield
    finally:
        if sys.modules.get(module) is placeholder:
            del sys.modules[module]


# ---------------------------------------------------------------- while nussl is imported


@contextlib.contextmanager
def window_functions_in_scipy_signal() -> Iterator[None]:
    """scipy >= 1.13 has no ``scipy.signal.{hamming,hann,blackman}`` (nussl core/constants.py:27,29,30).

    constants.py reads only their ``__name__``, once, on import. The functions are now in ``scipy.signal.windows``; they
    are added to ``scipy.signal`` during the import and removed afterwards.
    """
    import scipy.signal

    added = [name for name in ("hamming", "hann", "blackman") if not hasattr(scipy.signal, name)]
    for name in added:
        setattr(scipy.signal, name, getattr(scipy.signal.windows, name))
    try:
        yield
    finally:
        for name in added:
            delattr(scipy.signal, name)


def stempeg_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """``import stempeg`` raises RuntimeError where ffmpeg is missing, and with it ``import musdb``.

    stempeg reads and writes the .stem.mp4 files of MUSDB18, and musdb uses it inside functions only
    (audio_classes.py:52,100,161, __init__.py:332, tools.py:46,52). It is imported when one of them runs, and its error
    about ffmpeg appears there.
    """
    return _imported_on_use("stempeg")


def _import_with_musdb(name: str) -> types.ModuleType:
    """Imports musdb, or museval, which imports it."""
    with stempeg_imported_on_use():
        module = importlib.import_module(name)
    patch_musdb_wav_files(sys.modules["musdb"])
    return module


@contextlib.contextmanager
def seldom_used_modules_imported_on_use() -> Iterator[None]:
    """nussl imports museval, musdb, jams and pandas, which take seconds and which most jobs never use.

    They are used inside functions only: museval by BSSEvalV4 (evaluation/bss_eval.py:197), musdb by datasets.MUSDB18
    (datasets/hooks.py:69), jams by datasets.Scaper and OnTheFly (datasets/hooks.py:312,466), pandas by report_card
    (evaluation/report_card.py). museval imports musdb, and with it jsonschema.
    """
    with (
        _imported_on_use("museval", _import_with_musdb),
        _imported_on_use("musdb", _import_with_musdb),
        _imported_on_use("jams"),
        _imported_on_use("pandas"),
    ):
        yield


class _ZeroRedundancyOptimizerType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        optimizers = sys.modules.get("torch.distributed.optim")
        return optimizers is not None and isinstance(instance, optimizers.ZeroRedundancyOptimizer)


def distributed_optimizers_not_imported() -> contextlib.AbstractContextManager[None]:
    """ignite imports ``torch.distributed.optim``, and with it sympy and much of torch: over a second in every job.

    nussl's trainer imports ignite (ml/train/trainer.py:7), whose checkpoint handler needs one class of it for an
    isinstance check (ignite/handlers/checkpoint.py:16,534). It gets a class whose check has the same result.
    """
    replacement = _ZeroRedundancyOptimizerType("ZeroRedundancyOptimizer", (), {})
    return _imported_on_use("torch.distributed.optim", ZeroRedundancyOptimizer=replacement)


@contextlib.contextmanager
def scipy_ndimage_warning_hidden() -> Iterator[None]:
    """``scipy.ndimage.filters`` works and warns (separation/primitive/ft2d.py:2, melodia.py:2; norbert/contrib.py:3).

    Users of this workflow cannot act on it. All other warnings of the import are shown.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*`scipy\.ndimage\.filters` namespace", DeprecationWarning)
        yield


# ---------------------------------------------------------------- after nussl is imported


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
        import zarr

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
        window_functions_in_scipy_signal(),
        seldom_used_modules_imported_on_use(),
        distributed_optimizers_not_imported(),
        scipy_ndimage_warning_hidden(),
    ):
        nussl = importlib.import_module("nussl")
    patch_librosa_arguments(nussl)
    patch_model_loading(nussl)
    patch_duet(nussl)
    patch_hanning_window(nussl)
    patch_report_card(nussl)
    patch_cache(nussl)
    return nussl


def _import_scaper() -> types.ModuleType:
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
