"""Separation of audio files with a trained point: `make separate model=<point> input=song.wav`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import soundfile
import soxr

from separation.commands.trained_point import TrainedPoint, find_point
from separation.data.items import Item
from separation.errors import UserError
from separation.evaluation.separator import Separator
from separation.experiment.config import default_config, load_settings
from separation.files.atomic import atomic_path
from separation.files.layout import SEPARATED_AUDIO, ExportFolder
from separation.machine.threads import limited_threads

logger = logging.getLogger(__name__)

SECTION = 60.0  # seconds that are separated at a time
OVERLAP = 5.0  # seconds that two sections share, in which their estimates are matched and cross-faded


def separate_file(point: TrainedPoint, audio: Path, folder: Path, *, device: str = "auto") -> list[Path]:
    """Writes the estimates of one file as WAV (32-bit float, so that nothing clips).

    They have the file's sample rate, channels and length. Files longer than SECTION are separated in sections that
    overlap by OVERLAP seconds. Unless the point's sources have a fixed order, the estimates of a section are put into
    the order that best matches the section before.

    Args:
        point: Trained point, see `trained_point.find_point`.
        audio: Any file that libsndfile reads, of any length, rate and number of channels. A network trained on one
            channel separates each channel by itself. One trained on several needs as many; a single channel is
            repeated.
        folder: Folder for `<stem>_<source>.wav`, or `<stem>_1.wav` and so on if the estimates have no fixed order.
        device: cpu, cuda, or auto.

    Returns:
        The files.

    Raises:
        UserError: The file is not readable, is empty, or has a number of channels that the network cannot separate.
    """
    # torch takes seconds to import, and a wrong command line does not need it
    from separation.machine.torch_device import find_device

    samples, rate = _read(audio)
    dataset = point.options.dataset
    model_rate, model_channels = dataset.sample_rate, dataset.num_channels
    channels = samples.shape[1]
    if model_channels > 1 and channels not in (1, model_channels):
        raise UserError(f"{point.name} separates 1 or {model_channels} channels, found {channels}", file=audio)
    mixture = np.repeat(samples, model_channels, axis=1) if channels < model_channels else samples
    mixture = soxr.resample(mixture, rate, model_rate, quality="VHQ") if rate != model_rate else mixture
    # an STFT needs at least one window
    mixture = np.pad(mixture, [(0, max(0, dataset.n_fft - len(mixture))), (0, 0)])
    with limited_threads(os.cpu_count() or 1):
        model = _Model(point, str(find_device(device)), audio.name)
        estimates = _separate_sections(model, mixture, model_rate, point.in_order)
    written = []
    for name, estimate in zip(_names(point, len(estimates)), estimates, strict=True):
        result = soxr.resample(estimate, model_rate, rate, quality="VHQ") if rate != model_rate else estimate
        if channels < model_channels:
            result = result.mean(axis=1, keepdims=True)
        result = np.pad(result[: len(samples)], [(0, max(0, len(samples) - len(result))), (0, 0)])
        path = Path(folder) / f"{audio.stem}_{name}.wav"
        with atomic_path(path) as temporary:
            soundfile.write(temporary, result, rate, subtype="FLOAT")
        written.append(path)
    return written


def _read(audio: Path) -> tuple[np.ndarray, int]:
    if not audio.is_file():
        raise UserError("expected an audio file, found none", file=audio)
    try:
        samples, rate = soundfile.read(audio, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise UserError(
            f"cannot be read as audio ({error.error_string}); convert it to WAV or FLAC", file=audio
        ) from error
    if not len(samples):
        raise UserError("expected audio, found no samples", file=audio)
    if not np.isfinite(samples).all():
        raise UserError("expected finite samples, found NaN or infinity", file=audio)
    return samples, rate


class _Model:
    """The point's algorithm on arrays: maps a mixture (samples, channels) to one array of that shape per source."""

    def __init__(self, point: TrainedPoint, device: str, name: str):
        from separation.training.user_modules import load_extras

        load_extras(point.options)
        self._point, self._device, self._name = point, device, name
        self._separate: Separator | None = None

    def __call__(self, samples: np.ndarray) -> list[np.ndarray]:
        from separation.nussl_compat import nussl

        dataset = self._point.options.dataset
        mixture = nussl.AudioSignal(
            audio_data_array=np.ascontiguousarray(samples.T),
            sample_rate=dataset.sample_rate,
            stft_params=nussl.STFTParams(dataset.n_fft, dataset.hop_length, dataset.window_type),
        )
        mixture.path_to_input_file = self._name
        sources = dict.fromkeys(source_names(self._point) or ("1", "2"))
        item = Item(self._name, mixture, sources, {})
        if self._separate is None:
            self._separate = Separator(
                self._point.options.evaluation, item, checkpoint=self._point.checkpoint, device=self._device,
                seed=self._point.options.seed,
            )  # fmt: skip
        return [estimate.T for estimate in self._separate(item)]


def _separate_sections(
    separate: Callable[[np.ndarray], list[np.ndarray]], samples: np.ndarray, rate: int, in_order: bool
) -> list[np.ndarray]:
    """Separates section by section and cross-fades the estimates; all arrays are (samples, channels)."""
    section, overlap = int(SECTION * rate), int(OVERLAP * rate)
    joined: list[np.ndarray] | None = None
    for start in range(0, max(1, len(samples) - overlap), section - overlap):
        estimates = separate(samples[start : start + section])
        if joined is None:
            joined = [np.zeros_like(samples) for _ in estimates]
            for total, estimate in zip(joined, estimates, strict=True):
                total[: len(estimate)] = estimate
            continue
        width = min(overlap, len(estimates[0]))
        before = [total[start : start + width] for total in joined]
        order = range(len(estimates)) if in_order else _best_order(before, [each[:width] for each in estimates])
        fade = np.linspace(0, 1, width, endpoint=False, dtype=samples.dtype)[:, None]
        for total, index in zip(joined, order, strict=True):
            estimate = estimates[index]
            total[start : start + width] = (1 - fade) * total[start : start + width] + fade * estimate[:width]
            total[start + width : start + len(estimate)] = estimate[width:]
    return joined or []


def _best_order(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> Sequence[int]:
    """The permutation of `after` with the highest correlation with `before`."""
    products = np.array([[float(np.vdot(one, other)) for other in after] for one in before])
    orders = permutations(range(len(after)), len(before))
    return max(orders, key=lambda order: sum(products[index, other] for index, other in enumerate(order)))


def source_names(point: TrainedPoint) -> list[str]:
    """The names of the sources in the order of the estimates, from the point's scores; empty without scores."""
    import pandas

    for table in (*point.score_tables, ExportFolder(point.folder).scores):
        if table.exists():
            return list(dict.fromkeys(pandas.read_parquet(table, columns=["source"])["source"]))
    return []


def _names(point: TrainedPoint, count: int) -> list[str]:
    names = source_names(point) if point.in_order else []
    return names if len(names) == count else [str(number + 1) for number in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make separate`."""
    parser = argparse.ArgumentParser(prog="separate", description="Separate audio files with a trained point.")
    parser.add_argument("--model", required=True, help="a point's id or folder, or an exported folder")
    parser.add_argument("--output", type=Path, default=SEPARATED_AUDIO, help="folder for the estimates")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("input", nargs="+", type=Path, help="audio files")
    options = parser.parse_args(arguments)
    try:
        point = find_point(options.model, load_settings(default_config(), os.environ).artifacts)
        for audio in options.input:
            for path in separate_file(point, audio, options.output, device=options.device):
                print(path)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
