"""Speed of reading training excerpts: `python benchmarks/excerpt_reading.py`.

Excerpts of 400 frames from scenes of 4 s at 16 kHz, in batches of 8 with all four keys (magnitude of the mixture,
targets, binary mask, weights). nussl 1.1.9's Scaper dataset with its Cache and GetExcerpt in torch's DataLoader, as in
nussl's trainer, is compared with BatchLoader on the workflow's caches on disk, with the same number of workers. The
excerpts are compared first, then both run in turns. With a GPU, batches are moved to it.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import scenes
import torch

COUNT, EPOCHS, BATCH, LENGTH, TURNS = 48, 3, 8, 400, 5
KEYS = ("mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights")


def nussl_loader(split: dict, location: Path, num_workers: int, *, populate: bool = False) -> Iterable:
    from separation.nussl_compat import nussl

    transforms = nussl.datasets.transforms
    cache = transforms.Cache(str(location), cache_size=COUNT, overwrite=populate)
    # without cache_populated nussl would empty the cache
    dataset = scenes.nussl_dataset(split, cache, transforms.GetExcerpt(LENGTH), cache_populated=not populate)
    if populate:
        for index in range(COUNT):
            dataset[index]
    return torch.utils.data.DataLoader(
        dataset, BATCH, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
    )


def workflow_loader(
    manifest: Path, kind: str, num_workers: int, device: str, keys: tuple[str, ...] = KEYS
) -> Callable[[int], Iterable]:
    """A function from the number of an epoch to its batches."""
    from separation.experiment.options import DatasetOptions
    from separation.features.cache import open_cache
    from separation.training.batches import BatchLoader, plan_epoch

    store = open_cache(manifest)
    config = {**scenes.DATASET_CONFIG, "data_keys_for_training": list(keys), "cache_kind": kind}
    loader = BatchLoader(store, DatasetOptions.read(config), batch_size=BATCH, num_workers=num_workers, device=device)

    def epoch(number: int) -> Iterable:
        return loader.load(
            plan_epoch(
                store.frames,
                length=LENGTH,
                seed=0,
                epoch=number,
                sample_strategy="random",
                excerpt_selection_strategy="random",
            )
        )

    return epoch


def check_equal(loader: Iterable, manifests: dict[str, Path]) -> None:
    """Checks that the caches contain every excerpt of a batch of nussl, at the frame with equal magnitudes."""
    from separation.features.cache import open_cache
    from separation.features.decode import BatchOptions

    theirs = next(iter(loader))
    for kind, manifest in manifests.items():
        store = open_cache(manifest)
        options, differing = BatchOptions(KEYS), 0
        whole = store.excerpts(range(COUNT), [0] * COUNT, int(store.frames.max()), options)
        for row in range(BATCH):
            item = int(theirs["index"][row])
            expected = theirs["mix_magnitude"][row]
            errors = [
                float((whole["mix_magnitude"][item, start : start + LENGTH] - expected).abs().max())
                for start in range(int(store.frames[item]) - LENGTH + 1)
            ]
            start = int(np.argmin(errors))
            ours = store.excerpts([item], [start], LENGTH, options)
            for key in KEYS:
                one, other = ours[key][0].double(), theirs[key][row].double()
                if key == "ideal_binary_mask":
                    differing += int((one != other).sum())
                else:
                    power = 2 if key == "weights" else 1
                    torch.testing.assert_close(
                        one**power, other**power, rtol=2**-9, atol=1e-6 * float(other.max()) ** power
                    )
        if differing > 1e-4 * theirs["ideal_binary_mask"].numel():
            raise SystemExit(f"{kind}: {differing} bins of the masks differ")
        print(f"{kind}: equal to nussl's within float16; {differing} bins of the masks of a batch differ", flush=True)


def seconds_of(epoch: Callable[[int], Iterable], device: str) -> float:
    """Seconds of EPOCHS epochs, after one to warm up."""
    for _ in epoch(0):
        pass
    began = time.perf_counter()
    for number in range(EPOCHS):
        for batch in epoch(number):
            for key in KEYS:
                batch[key] = batch[key].to(device)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    from separation.features.cache import populate_cache

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = scenes.make_scenes(folder / "data", COUNT)
        location = folder / "nussl"
        nussl_loader(split, location, 0, populate=True)
        manifests = {kind: folder / kind / "train.json" for kind in ("features", "audio")}
        for kind, manifest in manifests.items():
            populate_cache(scenes.cache_spec(kind, data_keys_for_training=list(KEYS)), split, manifest)
        check_equal(nussl_loader(split, location, 0), manifests)
        for num_workers in (0, 1, 2):
            theirs = nussl_loader(split, location, num_workers)
            ours = {kind: workflow_loader(manifest, kind, num_workers, device) for kind, manifest in manifests.items()}
            seconds = {way: [] for way in ("nussl", *ours)}
            for _ in range(TURNS):
                seconds["nussl"].append(seconds_of(lambda number, theirs=theirs: theirs, device))
                for kind, epoch in ours.items():
                    seconds[kind].append(seconds_of(epoch, device))
            rate = {way: COUNT * EPOCHS / np.median(values) for way, values in seconds.items()}
            print(f"{num_workers} workers, {device}: nussl {rate['nussl']:.0f} items/s", flush=True)
            for kind in ours:
                ratios = [one / other for one, other in zip(seconds["nussl"], seconds[kind], strict=True)]
                print(f"  {kind}: {scenes.spread(ratios)} times as fast, {rate[kind]:.0f} items/s", flush=True)
    if device == "cpu":
        print("delivery to a GPU: not run: no GPU")


if __name__ == "__main__":
    main()
