"""Speed of evaluation: `python benchmarks/evaluation.py`.

Deep clustering and mask inference, BLSTM 1 x 64, 4 s mixtures at 16 kHz, on all processors of this machine. The
original loops over files in a pool of threads: nussl.datasets.Scaper reads a file from its JAMS, nussl's algorithm is
built for it and run, nussl's BSSEvalScale scores it, and the scores are written as YAML. It is compared with
evaluate_point with as many processes. The original uses one thread or all, whichever is faster in the first turn. In
both, the libraries use one processor per thread. Scores are compared in each turn: they are equal within a thousandth
of a decibel, with the same initial clusters.

Then the time of an evaluation whose k-means compares several draws is divided by that with a single draw, for a network
after 5 steps of training, where draws matter most. `python benchmarks/evaluation.py draws` measures this alone.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import scenes
import torch
import yaml
from training_step import CONFIG as CLUSTERING

COUNT, TURNS, STEPS = 120, 3, 60
METRICS = ("SI-SDR", "SI-SIR", "SI-SAR", "SD-SDR", "SNR", "SRR", "SI-SDRi")


def save_model(path: Path, config: dict, folder: Path, steps: int = STEPS) -> None:
    """Saves a network after a short training; clustering takes longer with an untrained one."""
    from separation.nussl_compat import nussl

    torch.manual_seed(0)
    model = nussl.ml.SeparationModel(config).train()
    dataset = nussl_dataset(folder)
    transform = nussl.datasets.transforms.PhaseSensitiveSpectrumApproximation()
    batches = []
    for index in range(12):
        data = transform(dataset[index])
        keys = ("mix_magnitude", "ideal_binary_mask", "source_magnitudes")
        tensors = {key: torch.tensor(data[key], dtype=torch.float32).transpose(0, 1)[None].contiguous() for key in keys}
        batches.append({**tensors, "weights": tensors["mix_magnitude"] / tensors["mix_magnitude"].mean()})
    losses = {"DeepClusteringLoss": {"weight": 1.0}}
    if "mask" in config["output"]:
        losses = {"PermutationInvariantLoss": {"weight": 1.0, "args": ["L1Loss"]}}
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    closure = nussl.ml.train.closures.TrainClosure(losses, optimizer, model)
    for step in range(steps):
        closure(None, batches[step % len(batches)])
    parts = [nussl.datasets.transforms.PhaseSensitiveSpectrumApproximation()]
    transform = nussl.datasets.transforms.Compose([*parts, nussl.datasets.transforms.ToSeparationModel()])
    metadata = {
        "stft_params": nussl.STFTParams(512, 128, "sqrt_hann"),
        "sample_rate": scenes.SAMPLE_RATE,
        "num_channels": 1,
        "train_dataset": {"transforms": transform},
    }
    model.eval().save(str(path), metadata=metadata)


def nussl_dataset(folder: Path):
    """nussl's own reader of a split: vocals and accompaniment."""
    from separation.nussl_compat import nussl

    group = nussl.datasets.transforms.SumSources([["bass", "drums", "other"]], group_names=["accompaniment"])
    parameters = nussl.STFTParams(512, 128, "sqrt_hann")
    return nussl.datasets.Scaper(str(folder), transform=group, stft_params=parameters, sample_rate=16_000)


def mask_config() -> dict:
    """The network of training_step with masks as output."""
    from separation.nussl_compat import nussl

    return nussl.ml.networks.builders.build_recurrent_mask_inference(
        num_features=257, hidden_size=64, num_layers=1, bidirectional=True, dropout=0.0, num_sources=2,
        mask_activation=["sigmoid"],
    )  # fmt: skip


class OriginalEvaluation:
    """The original implementation, one file at a time."""

    def __init__(self, folder: Path, algorithm: str, args: dict, output: Path):
        from separation.nussl_compat import nussl

        self.nussl, self.output = nussl, output
        self.build, self.args = getattr(nussl.separation.deep, algorithm), args
        self.dataset = nussl_dataset(folder)

    def __call__(self, index: int) -> dict:
        from separation.evaluation.separator import item_seed

        item = self.dataset[index]
        name = Path(self.dataset.items[index]).stem
        args = dict(self.args)
        if "num_sources" in args:
            args["random_state"] = item_seed(0, name)
        estimates = self.build(item["mix"], **args)()
        names = sorted(item["sources"])
        evaluator = self.nussl.evaluation.BSSEvalScale(
            [item["sources"][source] for source in names], estimates, source_labels=names, compute_permutation=True
        )
        scores = evaluator.evaluate()
        plain = {source: {key: np.asarray(value).tolist() for key, value in scores[source].items()} for source in names}
        (self.output / f"{name}.yml").write_text(yaml.dump(plain))
        return {
            (name, source, metric): float(np.mean(plain[source][metric]))
            for source in names
            for metric in plain[source]
        }

    def run(self, workers: int) -> tuple[float, dict]:
        """Returns seconds, and the score by (item, source, metric)."""
        began = time.perf_counter()
        found: dict = {}
        with ThreadPoolExecutor(workers) as pool:
            for scores in pool.map(self, range(len(self.dataset))):
                found |= scores
        return time.perf_counter() - began, found


def run_workflow(folder: Path, checkpoint: Path, algorithm: str, args: dict, scores: Path) -> tuple[float, dict]:
    """Returns seconds, and the score by (item, source, metric)."""
    from separation.evaluation.evaluate import evaluate_point
    from separation.experiment.options import PointOptions

    config = {
        "info": {"seed": 0},
        "dataset_config": scenes.DATASET_CONFIG,
        "train_config": {"loss_function": [["dpcl", "embedding", 1.0]], "num_epochs": 1},
        "model_config": CLUSTERING,
        "algorithm_config": {"class": algorithm, "args": args},
        "test_config": {"testers": [{"BSSEvalScale": {"compute_permutation": True}}]},
    }
    began = time.perf_counter()
    evaluate_point(
        PointOptions.read(config),
        point="p",
        evaluation="e",
        checkpoint=checkpoint,
        test={"folder": str(folder)},
        scores=scores,
        threads=os.cpu_count() or 1,
    )
    seconds = time.perf_counter() - began
    table = pandas.read_parquet(scores).set_index(["item", "source"])
    shutil.rmtree(scores.parent)
    return seconds, {(*row, metric): table.loc[row, metric] for row in table.index for metric in METRICS}


def compare(folder: Path, work: Path, algorithm: str, config: dict, args: dict) -> None:
    """Compares the scores of both implementations, then prints their speed and ratio."""
    checkpoint = work / f"{algorithm}.pth"
    save_model(checkpoint, config, folder)
    (work / "yaml").mkdir(exist_ok=True)
    original = OriginalEvaluation(folder, algorithm, {**args, "model_path": str(checkpoint)}, work / "yaml")
    run_workflow(folder, checkpoint, algorithm, args, work / "scores" / "scores.parquet")  # compiles, starts processes
    rates: dict[str, list[float]] = {"original": [], "here": []}
    ways = {1, os.cpu_count() or 1}
    for _ in range(TURNS):
        tried = {workers: original.run(workers) for workers in ways}
        ways = {min(tried, key=lambda workers: tried[workers][0])}
        seconds, theirs = tried[max(ways)]
        rates["original"].append(COUNT / seconds)
        seconds, found = run_workflow(folder, checkpoint, algorithm, args, work / "scores" / "scores.parquet")
        rates["here"].append(COUNT / seconds)
        shared = [key for key in found if key in theirs and abs(theirs[key]) < 90]
        worst = max(abs(found[key] - theirs[key]) for key in shared)
        if worst > 1e-3:
            raise SystemExit(f"{algorithm}: scores differ by {worst} dB")
    ratios = [one / other for one, other in zip(rates["here"], rates["original"], strict=True)]
    print(f"{algorithm}: {len(shared)} scores equal within {worst:.1e} dB")
    print(f"{algorithm}: {scenes.spread(ratios)} times the items/s, {statistics.median(rates['here']):.0f} a second")


def compare_draws(folder: Path, work: Path) -> None:
    """Prints the time of several draws of k-means relative to one, and the spread of scores over seeds of both."""
    checkpoint = work / "draws.pth"
    save_model(checkpoint, {"name": "clustering", **CLUSTERING}, folder, steps=5)
    several = {"num_sources": 2, "mask_type": "soft", "percentile": 90}
    ways = {"several": several, "one": {**several, "n_init": 1}}
    found: dict[str, list] = {"several": [], "one": []}
    seconds: dict[str, list[float]] = {"several": [], "one": []}
    scores = work / "draws" / "scores.parquet"
    run_workflow(folder, checkpoint, "DeepClustering", several, scores)
    for seed in range(TURNS):
        for way, args in ways.items():
            args = {**args, "random_state": seed}
            time_taken, values = run_workflow(folder, checkpoint, "DeepClustering", args, scores)
            seconds[way].append(time_taken)
            found[way].append([values[key] for key in sorted(values) if key[2] == "SI-SDR"])
    ratios = [many / one for many, one in zip(seconds["several"], seconds["one"], strict=True)]
    print(f"k-means: several draws take {scenes.spread(ratios)} times the time of an evaluation with one")
    for way, values in found.items():
        spread = np.ptp(np.array(values), axis=0)
        print(
            f"k-means, {way}: SI-SDR of {TURNS} seeds differs by up to {spread.max():.2f} dB, mean {spread.mean():.3f}"
        )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(scenes.make_scenes(Path(work) / "data", COUNT)["folder"])
        if sys.argv[1:] != ["draws"]:
            compare_with_original(folder, Path(work))
        compare_draws(folder, Path(work))


def compare_with_original(folder: Path, work: Path) -> None:
    """Compares both kinds of networks with the original implementation."""
    compare(folder, work, "DeepMaskEstimation", mask_config(), {})
    # with a single draw, as the original makes
    clustering = {"num_sources": 2, "mask_type": "soft", "percentile": 90, "n_init": 1}
    compare(folder, work, "DeepClustering", {"name": "clustering", **CLUSTERING}, clustering)


if __name__ == "__main__":
    main()
