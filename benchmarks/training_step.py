"""Speed of a training step: `python benchmarks/training_step.py`.

Deep clustering, BLSTM 1 x 64, embedding size 15, batches of 8 x 400 frames x 257 frequencies, one thread. The step of
nussl 1.1.9's trainer (TrainClosure with DeepClusteringLoss) is compared with the step of this workflow, on the same
batches and from the same weights. Losses and gradients are compared first, then both run in turns.

The share of time that a training waits for its loader is measured over an epoch from a cache on disk. With a GPU, whole
epochs are compared with those of nussl's dataset, Cache, DataLoader and closure, and with the same network on tensors
that are already on the GPU.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import scenes
import torch
from excerpt_reading import nussl_loader, workflow_loader

COUNT, STEPS, TURNS = 48, 4, 5
DPCL_KEYS = ("mix_magnitude", "ideal_binary_mask", "weights")
CONFIG = {
    "modules": {
        "mix_magnitude": {},
        "log_spectrogram": {"class": "AmplitudeToDB"},
        "normalization": {"class": "BatchNorm"},
        "recurrent_stack": {
            "class": "RecurrentStack",
            "args": {
                "num_features": 257,
                "hidden_size": 64,
                "num_layers": 1,
                "bidirectional": True,
                "dropout": 0.0,
                "rnn_type": "lstm",
            },
        },
        "embedding": {
            "class": "Embedding",
            "args": {
                "num_features": 257,
                "hidden_size": 128,
                "embedding_size": 15,
                "activation": ["sigmoid", "unit_norm"],
            },
        },
    },
    "connections": [
        ["log_spectrogram", ["mix_magnitude"]],
        ["normalization", ["log_spectrogram"]],
        ["recurrent_stack", ["normalization"]],
        ["embedding", ["recurrent_stack"]],
    ],
    "output": ["embedding"],
}


class NusslStep:
    """A step of nussl's closure."""

    def __init__(self, model: torch.nn.Module):
        from separation.nussl_compat import nussl

        self.model, self.optimizer = model, torch.optim.Adam(model.parameters(), lr=1e-3)
        self.closure = nussl.ml.train.closures.TrainClosure(
            {"DeepClusteringLoss": {"weight": 1.0}}, self.optimizer, self.model
        )

    def __call__(self, batch: dict[str, torch.Tensor]) -> float:
        return self.closure(None, batch)["loss"]


class WorkflowStep:
    """A step of separation.training.loop."""

    def __init__(self, model: torch.nn.Module, device: str):
        from separation.losses.combined import CombinedLoss

        self.model, self.optimizer = model, torch.optim.Adam(model.parameters(), lr=1e-3)
        self.loss = CombinedLoss([["dpcl", "embedding", 1.0]]).to(device)

    def __call__(self, batch: dict[str, torch.Tensor]) -> float:
        from separation.networks.build import without_unit_norm

        self.optimizer.zero_grad()
        with without_unit_norm(self.model, self.loss.scale_free_outputs()):
            output = self.model(batch)
        loss = self.loss(output, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), float("inf"))
        self.optimizer.step()
        return float(loss.detach())


def both_steps(device: str) -> tuple[NusslStep, WorkflowStep]:
    """Both implementations with the same initial weights."""
    from separation.experiment.options import NetworkOptions
    from separation.networks.build import build_model

    model = build_model(NetworkOptions.read(CONFIG), seed=0, num_frequencies=257)
    return NusslStep(copy.deepcopy(model).to(device)), WorkflowStep(model.to(device), device)


def check_equal(batch: dict[str, torch.Tensor], device: str) -> None:
    nussls, ours = both_steps(device)
    losses = nussls(dict(batch)), ours(dict(batch))
    worst = 0.0
    for one, other in zip(ours.model.parameters(), nussls.model.parameters(), strict=True):
        worst = max(worst, float((one.grad - other.grad).norm() / other.grad.norm().clamp(min=1e-12)))
    if abs(losses[0] - losses[1]) > 1e-5 * losses[0] or worst > 1e-3:
        raise SystemExit(f"losses {losses}, gradients differ by {worst:.2g}")
    print(f"equal: losses {losses[0]:.7f} and {losses[1]:.7f}, gradients within {worst:.1g} of their norm", flush=True)


def seconds_of(step: Callable[[dict], float], batches: Iterable[dict], device: str) -> float:
    began = time.perf_counter()
    for batch in batches:
        step(dict(batch))
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def compare_steps(batches: list[dict], device: str) -> None:
    nussls, ours = both_steps(device)
    ratios, seconds = [], []
    for _ in range(TURNS):
        theirs = seconds_of(nussls, batches, device)
        seconds.append(seconds_of(ours, batches, device))
        ratios.append(theirs / seconds[-1])
    print(f"step, {device}: {scenes.spread(ratios)} times as fast, {np.median(seconds) / len(batches) * 1e3:.0f} ms")


def measure_wait(manifest: Path, kind: str, device: str) -> None:
    """The share of an epoch in which the training waits for batches."""
    _, ours = both_steps(device)
    for num_workers in (0, 1):
        epoch = workflow_loader(manifest, kind, num_workers, device, keys=DPCL_KEYS)
        shares = []
        for number in range(3):
            wait, began = 0.0, time.perf_counter()
            batches = iter(epoch(number))
            while True:
                requested = time.perf_counter()
                batch = next(batches, None)
                wait += time.perf_counter() - requested
                if batch is None:
                    break
                ours(batch)
            shares.append(100 * wait / (time.perf_counter() - began))
        print(
            f"waiting for the loader, {kind}, {num_workers} workers: {scenes.spread(shares)} % of an epoch", flush=True
        )


def compare_epochs(split: dict, location: Path, manifests: dict[str, Path], device: str) -> None:
    """Whole epochs on a GPU."""
    nussls, ours = both_steps(device)

    def theirs_of(number: int) -> Iterator[dict]:
        for batch in loader:
            yield {key: values.float().to(device) for key, values in batch.items() if torch.is_tensor(values)}

    for num_workers in (0, 4):
        loader = nussl_loader(split, location, num_workers)
        seconds_of(nussls, theirs_of(0), device)
        theirs = [seconds_of(nussls, theirs_of(number), device) for number in range(TURNS)]
        for kind, manifest in manifests.items():
            epoch = workflow_loader(manifest, kind, num_workers, device, keys=DPCL_KEYS)
            resident = [dict(batch) for batch in epoch(0)]
            seconds_of(ours, epoch(0), device)
            loaded = [seconds_of(ours, epoch(number), device) for number in range(TURNS)]
            fed = [seconds_of(ours, resident, device) for _ in range(TURNS)]
            ratios = [one / other for one, other in zip(theirs, loaded, strict=True)]
            shares = [100 * one / other for one, other in zip(fed, loaded, strict=True)]
            print(
                f"epoch, {device}, {kind}, {num_workers} workers: {scenes.spread(ratios)} times as fast as nussl's; "
                f"{scenes.spread(shares)} % of the rate of resident tensors",
                flush=True,
            )


def main() -> None:
    from separation.features.cache import populate_cache

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = scenes.make_scenes(folder / "data", COUNT)
        manifests = {kind: folder / kind / "train.json" for kind in ("features", "audio")}
        for kind, manifest in manifests.items():
            populate_cache(scenes.cache_spec(kind), split, manifest)
        batches = list(workflow_loader(manifests["features"], "features", 0, "cpu", keys=DPCL_KEYS)(0))[:STEPS]
        check_equal(batches[0], "cpu")
        compare_steps(batches, "cpu")
        for kind, manifest in manifests.items():
            measure_wait(manifest, kind, "cpu")
        if device == "cpu":
            print("epochs on a GPU: not run: no GPU")
            return
        location = folder / "nussl"
        nussl_loader(split, location, 0, populate=True)
        on_gpu = [{key: values.to(device) for key, values in batch.items()} for batch in batches]
        check_equal(on_gpu[0], device)
        compare_steps(on_gpu, device)
        compare_epochs(split, location, manifests, device)


if __name__ == "__main__":
    main()
