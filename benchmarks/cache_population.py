"""Speed of filling a cache, and its size: `python benchmarks/cache_population.py`.

Scenes of 4 s at 16 kHz, two sources, phase-sensitive targets and weights, read from the same files by nussl 1.1.9's
Scaper dataset into its own Cache, and by populate_cache, in one process with one thread each. The contents are compared
first, then both run in turns. Prints the ratios of items per second and of bytes per item.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import scenes

COUNT, TURNS = 96, 4
KEYS = ("mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights")


def clock() -> np.ndarray:
    """Wall time and processor time of this process, in seconds; other processes disturb the latter less."""
    return np.array([time.perf_counter(), time.process_time()])


def fill_nussl_cache(split: dict, folder: Path) -> tuple[object, np.ndarray]:
    """Fills nussl's Cache; returns the cache and the seconds."""
    from separation.nussl_compat import nussl

    cache = nussl.datasets.transforms.Cache(str(folder), cache_size=COUNT, overwrite=True)
    dataset = scenes.nussl_dataset(split, cache)
    began = clock()
    for index in range(COUNT):
        dataset[index]
    return cache, clock() - began


def fill_workflow_cache(split: dict, manifest: Path, kind: str, keys: tuple[str, ...]) -> np.ndarray:
    from separation.features.cache import populate_cache

    manifest.parent.mkdir(parents=True)
    began = clock()
    populate_cache(scenes.cache_spec(kind, data_keys_for_training=list(keys)), split, manifest, workers=1)
    return clock() - began


def check_equal(cache: object, manifest: Path) -> None:
    from separation.features.cache import open_cache
    from separation.features.decode import BatchOptions

    store = open_cache(manifest)
    differing = bins = 0
    for index in range(COUNT):
        theirs = cache.cache[index]
        ours = store.excerpts([index], [0], len(theirs["mix_magnitude"]), BatchOptions(KEYS))
        for key in KEYS:
            one, other = ours[key][0].numpy(), theirs[key].numpy()
            if key == "ideal_binary_mask":
                differing, bins = differing + int((one != other).sum()), bins + one.size
            else:
                # float16 has 11 bits, nussl computes in float32; weights are roots of magnitudes
                power = 2 if key == "weights" else 1
                one, other = one**power, other**power
                np.testing.assert_allclose(one, other, rtol=2**-9, atol=1e-6 * other.max(), err_msg=key)
    if differing > 1e-4 * bins:
        raise SystemExit(f"{differing} of {bins} bins of the masks differ")
    print(f"equal: magnitudes, targets, weights within float16; {differing} of {bins} bins of the masks differ")


def size_of(folder: Path) -> float:
    """kB per item."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / COUNT / 1000


def main() -> None:
    ways = {
        "features for deep clustering": ("features", ("mix_magnitude", "ideal_binary_mask", "weights")),
        "features for mask inference": ("features", ("mix_magnitude", "source_magnitudes")),
        "audio": ("audio", KEYS),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = scenes.make_scenes(folder / "data", COUNT)
        nussl_cache, _ = fill_nussl_cache(split, folder / "warm")
        fill_workflow_cache(split, folder / "check" / "train.json", "features", KEYS)
        check_equal(nussl_cache, folder / "check" / "train.json")
        seconds = {way: [] for way in ("nussl", *ways)}
        for turn in range(TURNS):
            seconds["nussl"].append(fill_nussl_cache(split, folder / f"nussl{turn}")[1])
            for way, (kind, keys) in ways.items():
                seconds[way].append(fill_workflow_cache(split, folder / f"{way} {turn}" / "train.json", kind, keys))
        size = size_of(folder / "nussl0")
        rate = COUNT / np.median(seconds["nussl"], axis=0)[0]
        print(f"nussl's Cache: {rate:.1f} items/s, {size:.0f} kB an item")
        for way in ways:
            ratios = np.array(seconds["nussl"]) / np.array(seconds[way])
            rate, ours = COUNT / np.median(seconds[way], axis=0)[0], size_of(folder / f"{way} 0")
            print(
                f"{way}: {scenes.spread(ratios[:, 0])} times the items/s, {scenes.spread(ratios[:, 1])} by the "
                f"processor's clock, {rate:.0f} items/s; {ours:.0f} kB an item, 1/{size / ours:.1f} of nussl's"
            )


if __name__ == "__main__":
    main()
