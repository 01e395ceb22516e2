"""Baselines that points are compared with: the mixture, a fixed mask, and masks computed from the true sources.

- `mixture`: the mixture as the estimate of every source.
- `fixed_mask`: one number per source and frequency, learned from the training split, the same at all times. A static
  equalizer reaches this score; a model has to do better.
- `ideal_binary_mask`: each time-frequency bin to the source whose magnitude is greatest (nussl's IdealBinaryMask).
- `ideal_ratio_mask`: the source's share of the sum of all sources' magnitudes (nussl's IdealRatioMask, approach msa).
- `phase_sensitive_mask`: |S|/|X| cos(arg S - arg X), clipped to 0 to 1: the best real mask that does not amplify
  (H. Erdogan, J. R. Hershey, S. Watanabe, J. Le Roux: "Phase-sensitive and recognition-boosted speech separation using
  deep recurrent neural networks", ICASSP 2015, section 3).

All use the STFT of the dataset_config and, as a model does, the mixture's phase.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.items import Item, Items
from separation.errors import UserError
from separation.evaluation.evaluate import conditions_of, score_estimates, score_rows, write_scores
from separation.evaluation.metrics import ItemScores
from separation.evaluation.user_metrics import all_testers
from separation.experiment.options import DatasetOptions
from separation.experiment.testers import Tester
from separation.files.score_table import BASELINES
from separation.machine.parallel import run_in_order
from separation.machine.threads import limited_threads

logger = logging.getLogger(__name__)

ITEMS_PER_TASK = 25  # items that one process takes at a time


def evaluate_baselines(
    options: DatasetOptions,
    testers: Sequence[Any],
    *,
    train: Mapping[str, Any],
    test: Mapping[str, Any],
    scores: Path,
    evaluation: str,
    extras: str | None = None,
    threads: int = 1,
) -> None:
    """Scores every baseline of BASELINES on a test split, with the testers that score the points.

    Args:
        options: Audio format, STFT parameters and grouping of the sources.
        testers: test_config.testers, see `experiment.testers.read_testers`.
        train: Split from which `fixed_mask` is learned; see `Items`.
        test: Split to score.
        scores: Table to write, as in `evaluate.evaluate_point`, with the baseline's name as `point`. No audio is kept.
        evaluation: Id of the evaluation, for the table.
        extras: Folder with the user's own metrics.
        threads: Number of processes that separate and score, each with one thread.

    Raises:
        UserError: The config and the data do not fit.
    """
    items = Items(test, options)
    scorers = all_testers(testers, extras, items[0].mixture.sample_rate if len(items) else None)
    if not len(items):
        raise UserError("expected mixtures to evaluate on, found none", file=items.folder)
    with limited_threads(1):
        fixed = FixedMask(Items(train, options), file=Path(train["folder"]))
    shares = [range(first, min(first + ITEMS_PER_TASK, len(items))) for first in range(0, len(items), ITEMS_PER_TASK)]
    tasks = [(options, scorers, dict(test), fixed, share) for share in shares]
    scored = run_in_order(
        _score_share, tasks, workers=threads, items=f"shares of {ITEMS_PER_TASK} items for the baselines"
    )
    logger.info("scored %d baselines on %d items", len(BASELINES), len(items))
    ids = {"evaluation": evaluation, "dataset": items.dataset, "split": items.split}
    found = [item for share in scored for item in share]
    rows = [
        row
        for name in BASELINES
        for item, conditions, results in found
        for row in score_rows(item, conditions, results[name], {**ids, "point": name})
    ]
    write_scores(rows, scores, scorers)


def _score_share(
    options: DatasetOptions,
    testers: Sequence[Tester],
    test: Mapping[str, Any],
    fixed: FixedMask,
    indexes: Sequence[int],
) -> list[tuple[str, dict[str, Any], dict[str, ItemScores]]]:
    """Name, conditions and scores by baseline of some items; one task of a worker process."""
    items = Items(test, options)
    estimators: dict[str, Callable[[Item], list[np.ndarray]]] = {
        "mixture": lambda item: [item.mixture.audio_data] * len(item.sources),
        "fixed_mask": fixed,
        "ideal_binary_mask": ideal_binary_mask,
        "ideal_ratio_mask": ideal_ratio_mask,
        "phase_sensitive_mask": phase_sensitive_mask,
    }
    with limited_threads(1):
        return [
            (
                item.name,
                conditions_of(item),
                {name: score_estimates(item, estimators[name](item), testers) for name in BASELINES},
            )
            for item in (items[index] for index in indexes)
        ]


class FixedMask:
    """One soft mask per source, a number for each frequency, learned from training mixtures.

    For source S and mixture X, the mask at frequency f is the real number with the least squared error over all frames,
    channels and items of the training split,

        m(f) = sum Re(S(f,t) conj X(f,t)) / sum |X(f,t)|^2,    clipped to 0 to 1:

    the Wiener filter of the average spectrum. Masks are learned by the names of sources. For an item with a source of
    another name (an unseen speaker), the masks learned for positions in the order of the sources are used.

    Args:
        items: Training split.
        file: Path of the training split, for messages.

    Raises:
        UserError: No training mixtures.
    """

    def __init__(self, items: Items, *, file: Path):
        self._file = file
        if not len(items):
            raise UserError("expected training mixtures to learn the fixed mask from, found none", file=file)
        shared: dict[Any, np.ndarray] = {}
        energy: dict[Any, np.ndarray] = {}
        for item in items:
            mixture = item.mixture.stft()
            power = np.square(np.abs(mixture)).sum(axis=(1, 2), dtype=np.float64)
            for position, (name, source) in enumerate(item.sources.items()):
                product = (source.stft() * mixture.conj()).real.sum(axis=(1, 2), dtype=np.float64)
                for key in (name, position):
                    shared[key] = shared.get(key, 0.0) + product
                    energy[key] = energy.get(key, 0.0) + power
        self.masks = {
            key: np.clip(np.divide(shared[key], power, out=np.zeros_like(power), where=power > 0), 0.0, 1.0)
            for key, power in energy.items()
        }

    def __call__(self, item: Item) -> list[np.ndarray]:
        """The estimates of one item, each (channels, samples), in the order of its sources."""
        keys: Sequence[Any] = list(item.sources)
        if not all(name in self.masks for name in keys):
            keys = range(len(keys))
            if len(keys) > sum(isinstance(key, int) for key in self.masks):
                raise UserError(
                    f"item {item.name} has {len(keys)} sources, more than any training mixture", file=self._file
                )
        shape = item.mixture.stft().shape
        return apply_masks(item.mixture, [np.broadcast_to(self.masks[key][:, None, None], shape) for key in keys])


def ideal_binary_mask(item: Item) -> list[np.ndarray]:
    """Estimates by the ideal binary mask, each (channels, samples), in the order of the item's sources."""
    from separation.nussl_compat import nussl

    algorithm = nussl.separation.benchmark.IdealBinaryMask(item.mixture, list(item.sources.values()))
    return [estimate.audio_data for estimate in algorithm()]


def ideal_ratio_mask(item: Item) -> list[np.ndarray]:
    """Estimates by the ideal ratio mask of magnitudes, each (channels, samples), in the order of the item's sources."""
    from separation.nussl_compat import nussl

    algorithm = nussl.separation.benchmark.IdealRatioMask(item.mixture, list(item.sources.values()), approach="msa")
    return [estimate.audio_data for estimate in algorithm()]


def phase_sensitive_mask(item: Item) -> list[np.ndarray]:
    """Estimates by the phase-sensitive mask within 0 and 1, each (channels, samples), in the order of the sources."""
    mixture = item.mixture.stft()
    power = np.square(np.abs(mixture))
    masks = []
    for source in item.sources.values():
        # |S|/|X| cos(arg S - arg X) = Re(S conj X) / |X|^2
        product = (source.stft() * mixture.conj()).real
        masks.append(np.clip(np.divide(product, power, out=np.zeros_like(power), where=power > 0), 0.0, 1.0))
    return apply_masks(item.mixture, masks)


def apply_masks(mixture: Any, masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Applies each mask (frequencies, frames, channels) to the mixture; returns audio (channels, samples)."""
    stft = mixture.stft()
    estimates = (mixture.make_copy_with_stft_data(stft * mask, verbose=False) for mask in masks)
    return [estimate.istft() for estimate in estimates]
