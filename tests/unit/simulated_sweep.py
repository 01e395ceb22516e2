"""A simulated sweep: the files of a finished sweep, with random scores."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from separation.files.atomic import write_json
from separation.files.layout import PointFolder, SweepFiles, baseline_scores

SOURCES = ("vocals", "accompaniment")
EVALUATION = "dpcl-0123456789ab"
BASELINE_EVALUATION = "baselines-ba9876543210"
# SI-SDR in dB above the mixture
BASELINE_GAINS = {
    "mixture": 0.0,
    "fixed_mask": 3.2,
    "ideal_binary_mask": 14.0,
    "ideal_ratio_mask": 13.1,
    "phase_sensitive_mask": 14.6,
}


@dataclass
class SimulatedSweep:
    """A sweep's results, the folder of its points, and the arguments of `collect_scores`."""

    files: SweepFiles
    artifacts: Path
    points: list[dict] = field(default_factory=list)
    score_files: list[Path] = field(default_factory=list)

    def folder(self, point: str) -> PointFolder:
        """The folder of a point, by its id."""
        return PointFolder(self.artifacts / point)


def simulate_sweep(
    folder: Path,
    swept: dict[str, list] | None = None,
    *,
    num_items: int = 48,
    num_songs: int = 8,
    num_epochs: int = 12,
    seconds: float = 0.5,
    sample_rate: int = 8000,
    seed: int = 0,
) -> SimulatedSweep:
    """Writes score files, histories and estimates of every combination of `swept` (by default 8 points).

    Point 2 (counted from 0) has the lowest validation loss, point 3 the highest test scores.
    """
    if swept is None:
        swept = {
            "train_config.learning_rate": [0.1, 0.01, 0.001, 0.0001],
            "train_config.sample_strategy": ["sequential", "random"],
        }
    random = np.random.default_rng(seed)
    sweep = SimulatedSweep(SweepFiles(folder), folder / "artifacts")
    items = [f"{index:06d}" for index in range(num_items)]
    songs = [f"song_{index % num_songs:02d}" for index in range(num_items)]
    song_effect = dict(zip(sorted(set(songs)), random.normal(0, 1.0, num_songs), strict=True))
    difficulty = random.normal(0, 0.8, (num_items, len(SOURCES))) + np.array([[song_effect[song]] for song in songs])
    mixture = random.normal(0, 1.5, num_items)[:, None] * np.array([[1, -1]])

    def write_scores(point: str, evaluation: str, gains: np.ndarray, path: Path) -> None:
        rows = []
        for i, item in enumerate(items):
            for j, source in enumerate(SOURCES):
                gain = float(gains[i, j])
                row = dict(point=point, evaluation=evaluation, dataset="toy_music-abc", split="test", item=item)
                row |= {"source": source, "SI-SDR": mixture[i, j] + gain, "SI-SDRi": gain}
                row |= {
                    "SI-SIR": mixture[i, j] + 1.8 * gain,
                    "SI-SAR": 9.0 + 0.2 * gain,
                    "SNR": mixture[i, j] + gain + 1,
                }
                row |= {"coherent": True, "songs": songs[i], "snr_vocals": float(mixture[i, 0])}
                rows.append(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_parquet(path, index=False)
        sweep.score_files.append(path)

    for name, gain in BASELINE_GAINS.items():
        noise = 0 if name == "mixture" else difficulty * (0.3 if name == "fixed_mask" else 0.5)
        write_scores(
            name, BASELINE_EVALUATION, gain + noise + np.zeros_like(mixture), baseline_scores(sweep.artifacts, name)
        )

    combinations = list(itertools.product(*swept.values()))
    for index, values in enumerate(combinations):
        point = f"dpcl-toy_music-s0-{index:012x}"
        label = ", ".join(f"{key.split('.')[-1]}={value}" for key, value in zip(swept, values, strict=True))
        setting = dict(zip(swept, values, strict=True))
        sweep.points.append(
            dict(point=point, label=label, swept=setting, block=0, seed=0, group=f"group{index}", evaluation=EVALUATION)
        )
        level = 8.0 if index == 3 else 7.5 if index == 2 else 6.0 - 3.0 * ((index * 7919) % 97) / 97
        noise = random.normal(0, 0.7, mixture.shape)
        point_folder = sweep.folder(point)
        evaluation = point_folder.evaluation(EVALUATION)
        write_scores(point, EVALUATION, level + difficulty + noise, evaluation.scores)
        epochs = np.arange(1, num_epochs + 1)
        floor = 0.10 if index == 2 else 0.11 if index == 3 else 0.13 + 0.1 * ((index * 31) % 17) / 17
        validation = floor + 0.3 * np.exp(-epochs / 3) + random.uniform(0, 0.004, num_epochs)
        history = pd.DataFrame(
            {"epoch": epochs, "train_loss": validation - 0.02 - 0.002 * epochs, "validation_loss": validation}
        )
        history["learning_rate"] = setting.get("train_config.learning_rate", 1e-3)
        history["seconds"] = 2.5 + 0.5 * (index % 5)
        history["memory_mb"] = 400.0 + index
        history["best"] = validation == validation.min()
        history.to_csv(point_folder.history, index=False)
        write_json(point_folder.progress, {"state": "finished", "device": "cpu"})
        if index == 2:
            gains = (level + difficulty + noise).mean(axis=1)
            order = np.argsort(gains)
            chosen = {"worst": order[0], "median": order[num_items // 2], "best": order[-1]}
            kept = [
                write_item(evaluation.estimates, role, items[at], gains[at], seconds, sample_rate)
                for role, at in chosen.items()
            ]
            write_json(evaluation.estimate_index, {"items": kept})
    return sweep


def write_item(folder: Path, role: str, item: str, score: float, seconds: float, sample_rate: int = 8000) -> dict:
    """Writes one mixture with its references and estimates as wav; returns its entry for the index of estimates."""
    (folder / item).mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    random = np.random.default_rng(int(item))
    phase = 2 * np.pi * (440 * time + 20 * np.sin(2 * np.pi * 0.7 * time))
    voice = 0.2 * sum(np.sin(n * phase) / n for n in (1, 2, 3)) * (1 + np.sin(2 * np.pi * time))
    rest = 0.3 * random.normal(size=len(time)) * np.exp(-8 * (time % 0.5)) + 0.2 * np.sin(2 * np.pi * 110 * time)
    references = {"vocals": voice, "accompaniment": rest}
    estimates = {"vocals": voice + 0.15 * rest, "accompaniment": rest + 0.15 * voice}
    soundfile.write(folder / item / "mixture.wav", 0.5 * (voice + rest), sample_rate)
    sources = {}
    for source in SOURCES:
        paths = {kind: f"{item}/{source}_{kind}.wav" for kind in ("estimate", "reference")}
        soundfile.write(folder / paths["estimate"], 0.5 * estimates[source], sample_rate)
        soundfile.write(folder / paths["reference"], 0.5 * references[source], sample_rate)
        sources[source] = {**paths, "scores": {"SI-SDR": float(score), "SI-SDRi": float(score), "SI-SIR": None}}
    return {"item": item, "role": role, "gain": 0.5, "mixture": f"{item}/mixture.wav", "sources": sources}
