"""Separates audio files with a trained point: `make separate model=<point> input=song.wav`."""

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
from separation.evaluation.separator import Separator, resolve_device
from separation.experiment.config import default_config, load_settings
from separation.files.atomic import atomic_path
from separation.machine.threads import limited_threads

logger = logging.getLogger(__name__)

SECTION = 60.0  # seconds that are separated at a time
OVERLAP = 5.0  # seconds that two sections share: they tell the order of the estimates, which are joined there


def separate_file(point: TrainedPoint, audio: Path, folder: Path, *, device: str = "auto") -> list[Path]:
    """Writes the estimates of one file as WAV (32-bit float, so that nothing clips).

    They have the file's sample rate, channels and length. Files longer than SECTION are separated in sections that
    share OVERLAP seconds; estimates of a section stand in the order in which they resemble those of the one before
    best, unless the point's sources have a fixed order.

    Args:
        point: see `trained.find_point`.
        audio: any file that libsndfile reads, of any length, rate and number of channels. A network that was trained on
            one channel takes each by itself; one that was trained on several takes as many, and a file of one channel
            as so many equal ones.
        folder: where `<stem>_<source>.wav` go, or `<stem>_1.wav` and so on where the estimates have no order.
        device: cpu, cuda, or auto.

    Returns:
        the files.

    Raises:
        UserError: the file cannot be read, holds nothing, or has channels the network cannot take.
    """
    samples, rate = _read(audio)
    dataset = point.config["dataset_config"]
    model_rate, model_channels = int(dataset["sample_rate"]), int(dataset["num_channels"])
    channels = samples.shape[1]
    if model_channels > 1 and channels not in (1, model_channels):
        raise UserError(f"expected 1 or {model_channels} channels, as {point.name} takes, found {channels}", file=audio)
    heard = np.repeat(samples, model_channels, axis=1) if channels < model_channels else samples
    heard = soxr.resample(heard, rate, model_rate, quality="VHQ") if rate != model_rate else heard
    # shorter than a window there is no spectrum
    heard = np.pad(heard, [(0, max(0, int(dataset["n_fft"]) - len(heard))), (0, 0)])
    seed = int(point.config["info"].get("seed") or 0)
    with limited_threads(os.cpu_count() or 1):
        found = _in_sections(_Model(point, resolve_device(device), seed, audio.name), heard, model_rate, point.in_order)
    written = []
    for name, estimate in zip(_names(point, len(found)), found, strict=True):
        back = soxr.resample(estimate, model_rate, rate, quality="VHQ") if rate != model_rate else estimate
        if channels < model_channels:
            back = back.mean(axis=1, keepdims=True)
        back = np.pad(back[: len(samples)], [(0, max(0, len(samples) - len(back))), (0, 0)])
        path = Path(folder) / f"{audio.stem}_{name}.wav"
        with atomic_path(path) as temporary:
            soundfile.write(temporary, back, rate, subtype="FLOAT")
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
        raise UserError("expected finite samples, found others", file=audio)
    return samples, rate


class _Model:
    """Calls the point's algorithm on arrays (samples, channels); gives as many for each source."""

    def __init__(self, point: TrainedPoint, device: str, seed: int, name: str):
        from separation.training.user_modules import load_extras

        load_extras(point.config)
        self._point, self._device, self._seed, self._name = point, device, seed, name
        self._separate: Separator | None = None

    def __call__(self, samples: np.ndarray) -> list[np.ndarray]:
        from separation.nussl_compat import nussl

        dataset = self._point.config["dataset_config"]
        mixture = nussl.AudioSignal(
            audio_data_array=np.ascontiguousarray(samples.T),
            sample_rate=int(dataset["sample_rate"]),
            stft_params=nussl.STFTParams(dataset["n_fft"], dataset["hop_length"], dataset["window_type"]),
        )
        mixture.path_to_input_file = self._name
        sources = dict.fromkeys(source_names(self._point) or ("1", "2"))
        item = Item(self._name, mixture, sources, {})
        if self._separate is None:
            self._separate = Separator(
                self._point.config["algorithm_config"], item, checkpoint=self._point.checkpoint, device=self._device,
                seed=self._seed,
            )  # fmt: skip
        return [estimate.T for estimate in self._separate(item)]


def _in_sections(
    separate: Callable[[np.ndarray], list[np.ndarray]], samples: np.ndarray, rate: int, in_order: bool
) -> list[np.ndarray]:
    """Separates section by section and joins what comes out; everything is (samples, channels)."""
    section, shared = int(SECTION * rate), int(OVERLAP * rate)
    joined: list[np.ndarray] | None = None
    step = section - shared
    starts = range(0, max(1, len(samples) - shared), step)
    for start in starts:
        found = separate(samples[start : start + section])
        if joined is None:
            joined = [np.zeros_like(samples) for _ in found]
            for total, estimate in zip(joined, found, strict=True):
                total[: len(estimate)] = estimate
            continue
        width = min(shared, len(found[0]))
        before = [total[start : start + width] for total in joined]
        order = range(len(found)) if in_order else _alike(before, [estimate[:width] for estimate in found])
        fade = np.linspace(0, 1, width, endpoint=False, dtype=samples.dtype)[:, None]
        for total, place in zip(joined, order, strict=True):
            estimate = found[place]
            total[start : start + width] = (1 - fade) * total[start : start + width] + fade * estimate[:width]
            total[start + width : start + len(estimate)] = estimate[width:]
    return joined or []


def _alike(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> Sequence[int]:
    """The order of `after` that differs least from `before`."""
    products = np.array([[float(np.vdot(one, other)) for other in after] for one in before])
    orders = permutations(range(len(after)), len(before))
    return max(orders, key=lambda order: sum(products[place, other] for place, other in enumerate(order)))


def source_names(point: TrainedPoint) -> list[str]:
    """The sources in the order of the estimates, by the names in the point's scores; none where it has no scores."""
    import pandas

    tables = [*point.folder.glob("evaluations/*/scores.parquet"), *point.folder.glob("scores.parquet")]
    for table in sorted(tables):
        return list(dict.fromkeys(pandas.read_parquet(table, columns=["source"])["source"]))
    return []


def _names(point: TrainedPoint, count: int) -> list[str]:
    names = source_names(point) if point.in_order else []
    return names if len(names) == count else [str(number + 1) for number in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make separate`."""
    parser = argparse.ArgumentParser(prog="separate", description="Separates audio files with a trained point.")
    parser.add_argument("--model", required=True, help="a point's id or folder, or a folder that `export` wrote")
    parser.add_argument("--output", type=Path, default=Path("results/separated"), help="a folder")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("input", nargs="+", type=Path, help="audio files")
    asked = parser.parse_args(arguments)
    try:
        point = find_point(asked.model, load_settings(default_config(), os.environ).artifacts)
        for audio in asked.input:
            for path in separate_file(point, audio, asked.output, device=asked.device):
                print(path)
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
