"""nussl 1.1.9 and scaper 1.6.5, mended for today's libraries: the one place where they are imported.

Use it as ``from separation.nussl_compat import nussl`` and ``from separation.nussl_compat import scaper``. Each is
imported when it is first asked for, so a job that only mixes never waits for torch. Every mend is a function that says
what breaks, where in the wheel, and why the mend is right. A mend replaces a name in the module that looks it up, never
in numpy, scipy, librosa or torch themselves: other code in the process sees those libraries as they are.

nussl and scaper take pysox and the ``sox`` program where soxbindings is not installed; that needs no mend.
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
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import nussl
    import scaper

__all__ = ["nussl", "scaper"]


class _Overlay(types.ModuleType):
    """A module with a few names replaced; every other name is looked up in the module itself, when it is used."""

    def __init__(self, module: types.ModuleType, **names: Any):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class _ImportedOnUse(types.ModuleType):
    """Stands for a module until one of its names is used, then imports it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by the import machinery and by `inspect`, which do not use the module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _imported_on_use(name: str, **names: Any) -> Iterator[None]:
    """Whoever imports the module `name` inside the block gets a stand-in, which has `names` from the start.

    After the block, an import of the module gives the module again.
    """
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = _ImportedOnUse(name)
    stand_in.__dict__.update(names)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


# ---------------------------------------------------------------- while nussl is imported


@contextlib.contextmanager
def window_functions_in_scipy_signal() -> Iterator[None]:
    """scipy >= 1.13 has no ``scipy.signal.{hamming,hann,blackman}`` (nussl core/constants.py:27,29,30).

    constants.py reads their ``__name__`` once, while it is imported, and nothing else. The functions live on in
    ``scipy.signal.windows``; they are lent to ``scipy.signal`` for the time of the import and taken away again.
    """
    import scipy.signal

    lent = [name for name in ("hamming", "hann", "blackman") if not hasattr(scipy.signal, name)]
    for name in lent:
        setattr(scipy.signal, name, getattr(scipy.signal.windows, name))
    try:
        yield
    finally:
        for name in lent:
            delattr(scipy.signal, name)


def stempeg_imported_on_use() -> contextlib.AbstractContextManager[None]:
    """``import stempeg`` raises RuntimeError where ffmpeg is missing, and with it ``import nussl``.

    evaluation/bss_eval.py:2 imports museval, which imports musdb, which imports stempeg. stempeg reads and writes the
    .stem.mp4 files of MUSDB18, and musdb uses it inside functions only (audio_classes.py:52,100,161, __init__.py:332,
    tools.py:46,52). It is imported when one of them runs, which is where its own error about ffmpeg belongs.
    """
    return _imported_on_use("stempeg")


class _ZeroRedundancyOptimizerType(type):
    def __instancecheck__(cls, instance: object) -> bool:
        optimizers = sys.modules.get("torch.distributed.optim")
        return optimizers is not None and isinstance(instance, optimizers.ZeroRedundancyOptimizer)


def distributed_optimizers_left_out() -> contextlib.AbstractContextManager[None]:
    """ignite imports ``torch.distributed.optim``, and with it sympy and much of torch: over a second in every job.

    nussl's trainer imports ignite (ml/train/trainer.py:7), whose checkpoint handler needs one class of it, to ask
    whether an object is an instance (ignite/handlers/checkpoint.py:16,534). It gets a class that answers the same.
    """
    stand_in = _ZeroRedundancyOptimizerType("ZeroRedundancyOptimizer", (), {})
    return _imported_on_use("torch.distributed.optim", ZeroRedundancyOptimizer=stand_in)


@contextlib.contextmanager
def old_names_of_scipy_ndimage_unannounced() -> Iterator[None]:
    """``scipy.ndimage.filters`` works and warns (separation/primitive/ft2d.py:2, melodia.py:2; norbert/contrib.py:3).

    No user of this workflow could do anything about it. What else is warned of during the import is shown.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*`scipy\.ndimage\.filters` namespace", DeprecationWarning)
        yield


# ---------------------------------------------------------------- after nussl is imported


def mend_librosa_positional_arguments(nussl: types.ModuleType) -> None:
    """librosa >= 0.10 takes by keyword what nussl passes by position.

    That is ``resample`` (core/audio_signal.py:1491), ``feature.rms`` (core/audio_signal.py:1434) and ``filters.mel``
    (ml/networks/modules/blocks.py:270). The replacements pass nussl's positions on under the names that they had. `rms`
    pads by reflection again, as nussl's own test of it expects: librosa's zeros make the first and last window quieter.
    The default resampler is librosa's of today (soxr_hq, once kaiser_best); a `res_type` is passed on.
    """
    import librosa

    def resample(y, orig_sr, target_sr, **options):
        return librosa.resample(y, orig_sr=orig_sr, target_sr=target_sr, **options)

    def rms(y, **options):
        return librosa.feature.rms(y=y, **{"pad_mode": "reflect", **options})

    def mel(sr, n_fft, n_mels, **options):
        return librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, **options)

    # not overlays: naming librosa.feature or librosa.filters imports them, which takes a second
    feature, filters = types.ModuleType("librosa.feature"), types.ModuleType("librosa.filters")
    feature.rms, filters.mel = rms, mel
    audio_signal = importlib.import_module("nussl.core.audio_signal")
    audio_signal.librosa = _Overlay(librosa, resample=resample, feature=feature)
    blocks = importlib.import_module("nussl.ml.networks.modules.blocks")
    blocks.librosa = _Overlay(librosa, filters=filters)


def mend_loading_of_models(nussl: types.ModuleType) -> None:
    """torch >= 2.6 loads with ``weights_only=True`` and refuses nussl's checkpoints (core/migration.py:81).

    They hold pickled metadata (STFTParams, the transforms of the datasets). ``weights_only=False`` is given for this
    one call, the only `torch.load` in nussl. A pickle can run code when it is read: load only what you trust.
    """
    import torch

    migration = importlib.import_module("nussl.core.migration")
    migration.torch = _Overlay(torch, load=functools.partial(torch.load, weights_only=False))


def mend_matrix_in_duet(nussl: types.ModuleType) -> None:
    """numpy >= 2.0 has no ``np.mat``, another name of ``np.asmatrix`` (separation/spatial/duet.py:227,364)."""
    import numpy

    importlib.import_module("nussl.separation.spatial.duet").np = _Overlay(numpy, mat=numpy.asmatrix)


def mend_hanning_window(nussl: types.ModuleType) -> None:
    """scipy (1.17) does not know 'hanning', OverlapAdd's default (separation/composite/overlap_add.py:7,83).

    It was another name of 'hann' in ``scipy.signal.get_window``. `AudioSignal.get_window` is where nussl asks scipy.
    """
    get_window = nussl.AudioSignal.get_window

    @functools.wraps(get_window)
    def get_window_by_todays_name(window_type, window_length):
        return get_window("hann" if window_type == "hanning" else window_type, window_length)

    nussl.AudioSignal.get_window = staticmethod(get_window_by_todays_name)


def mend_report_card(nussl: types.ModuleType) -> None:
    """pandas >= 2.0 raises where mean, std or median meet the columns 'source' and 'file' (evaluation/report_card.py).

    Those are lines 83, 87 and 107. pandas 1 left out the columns that are not numbers. So do these, before nussl's
    functions see the table: the labels, which nussl takes from the column names, then agree with the values too.
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
    """A zarr array of one pickled object per chunk, as nussl's Cache used it with zarr 2.

    Args:
        array: a one-dimensional zarr array of variable-length bytes; empty bytes are an item that was never written.
    """

    def __init__(self, array: Any):
        self.array = array

    @property
    def info(self) -> Any:
        return self.array.info

    @property
    def nchunks_initialized(self) -> int:
        """How many items have been written; nussl's users compare it with the size of the dataset."""
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


def mend_cache(nussl: types.ModuleType) -> None:
    """zarr 3 has no object arrays, ``object_codec`` or ``ThreadSynchronizer`` (datasets/transforms.py:646-654).

    The items are pickled before zarr sees them and stored as byte strings in the same format (zarr format 2, one item
    per chunk, the same compressor). The synchronizer kept two threads from writing one chunk at a time, which one item
    per chunk does too. Nothing else of nussl's Cache is changed, nor that it empties its folder when it is built with
    ``overwrite=True``. Like the original it unpickles what it reads: open only caches that you trust.
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


def mend_infinity_in_scaper(scaper: types.ModuleType) -> None:
    """numpy >= 2.0 has no ``np.Inf``, another name of ``np.inf`` (scaper/core.py:1489,1512,1562,1598)."""
    import numpy

    scaper.core.np = _Overlay(numpy, Inf=numpy.inf)


def spare_scaper_the_headers(scaper: types.ModuleType) -> None:
    """scaper opens a source file for each event, to know its duration (scaper/core.py:1474): once is enough while the
    file stays as it is."""
    import soundfile

    @functools.lru_cache(maxsize=65536)
    def known(path: str, time: int, size: int) -> Any:
        return soundfile.info(path)

    def info(path: str) -> Any:
        found = os.stat(path)
        return known(path, found.st_mtime_ns, found.st_size)

    scaper.core.soundfile = _Overlay(soundfile, info=info)


class _WavInfo:
    """Of a WAV file, what musdb asks stempeg.Info for, as soundfile tells it."""

    def __init__(self, info: Any):
        self._info = info

    def samples(self, _stem: int | None) -> int:
        return self._info.frames

    def duration(self, _stem: int | None) -> float:
        return self._info.duration

    def rate(self, _stem: int | None) -> int:
        return self._info.samplerate


def mend_wav_files_of_musdb(nussl: types.ModuleType) -> None:
    """musdb reads the WAV files of MUSDB18-HQ through stempeg and ffmpeg, to 16 bits (audio_classes.py:52,100).

    soundfile reads them without either, to all of their bits. Other files, and WAV files that musdb is asked to
    resample, stay with stempeg.
    """
    import soundfile

    classes = nussl.musdb.audio_classes
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
        stempeg_imported_on_use(),
        distributed_optimizers_left_out(),
        old_names_of_scipy_ndimage_unannounced(),
    ):
        nussl = importlib.import_module("nussl")
    mend_librosa_positional_arguments(nussl)
    mend_loading_of_models(nussl)
    mend_matrix_in_duet(nussl)
    mend_hanning_window(nussl)
    mend_report_card(nussl)
    mend_cache(nussl)
    mend_wav_files_of_musdb(nussl)
    return nussl


def _import_scaper() -> types.ModuleType:
    scaper = importlib.import_module("scaper")
    mend_infinity_in_scaper(scaper)
    spare_scaper_the_headers(scaper)
    return scaper


_IMPORTERS = {"nussl": _import_nussl, "scaper": _import_scaper}


def __getattr__(name: str) -> types.ModuleType:
    """Imports and mends `nussl` or `scaper` when it is first asked for.

    Raises:
        ImportError: somebody imported it before, unmended, or a mend does not fit the version that is installed.
    """
    if name not in _IMPORTERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in sys.modules:
        raise ImportError(
            f"{name} was imported before separation.nussl_compat could mend it; "
            f"import it only by `from separation.nussl_compat import {name}`"
        )
    try:
        module = _IMPORTERS[name]()
    except AttributeError as error:  # from here it would read as "cannot import name", without its cause
        raise ImportError(f"{name} cannot be mended, these mends fit nussl 1.1.9 and scaper 1.6.5: {error}") from error
    globals()[name] = module
    return module
