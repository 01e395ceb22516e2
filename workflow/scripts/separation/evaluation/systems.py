"""Scores of estimates that another program wrote as audio files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from separation.data.items import Item, Items
from separation.errors import UserError
from separation.evaluation.evaluate import conditions_of, score_estimates, score_rows, write_scores
from separation.evaluation.metrics import ItemScores
from separation.evaluation.user_metrics import all_testers
from separation.experiment.options import DatasetOptions
from separation.experiment.testers import Tester
from separation.files.score_table import SYSTEM
from separation.machine.parallel import run_in_order
from separation.machine.threads import limited_threads

logger = logging.getLogger(__name__)

ITEMS_PER_TASK = 25  # items that one process takes at a time


def score_system(
    options: DatasetOptions,
    testers: Sequence[Any],
    *,
    name: str,
    pattern: str,
    sources: Mapping[str, str],
    test: Mapping[str, Any],
    folder: Path,
    scores: Path,
    evaluation: str,
    extras: str | None = None,
    threads: int = 1,
) -> None:
    """Scores audio files on a test split, with the testers that score the points.

    Args:
        options: Audio format and grouping of the sources.
        testers: test_config.testers, see `experiment.testers.read_testers`.
        name: Name of the system.
        pattern: Path of an estimate in `folder`, with {item} and {source}.
        sources: Name of a source in file names, by its own name, where it differs.
        test: Split to score; see `Items`.
        folder: Folder of the estimates.
        scores: Table to write, as in `evaluate.evaluate_point`, with SYSTEM and the name as `point`. No audio is kept.
        evaluation: Id of the evaluation, for the table.
        extras: Folder with the user's own metrics.
        threads: Number of processes, each with one thread.

    Raises:
        UserError: Estimates are missing, unreadable, or differ from the mixture in sample rate, channels or length.
    """
    items = Items(test, options)
    if not len(items):
        raise UserError("expected mixtures to evaluate on, found none", file=items.folder)
    scorers = all_testers(testers, extras, items[0].mixture.sample_rate)
    shares = [range(first, min(first + ITEMS_PER_TASK, len(items))) for first in range(0, len(items), ITEMS_PER_TASK)]
    files = _Files(folder, pattern, dict(sources))
    _check_present(files, items)
    tasks = [(options, scorers, dict(test), files, share) for share in shares]
    scored = run_in_order(_score_share, tasks, workers=threads, items=f"shares of {ITEMS_PER_TASK} items")
    logger.info("scored the estimates of %s on %d items", name, len(items))
    ids = {"point": SYSTEM + name, "evaluation": evaluation, "dataset": items.dataset, "split": items.split}
    rows = [row for share in scored for item, conditions, result in share
            for row in score_rows(item, conditions, result, ids)]  # fmt: skip
    write_scores(rows, scores, scorers)


class _Files:
    """The audio files of a system."""

    def __init__(self, folder: Path, pattern: str, sources: Mapping[str, str]):
        self._folder, self._pattern, self._sources = Path(folder), pattern, sources

    def path(self, item: str, source: str) -> Path:
        """The file of one estimate."""
        return self._folder / self._pattern.format(item=item, source=self._sources.get(source, source))

    def check_sources(self, known: Sequence[str]) -> None:
        """Raises a UserError if `sources` names one that the items do not have."""
        for source in self._sources:
            if source not in known:
                raise UserError(
                    f"the test items have no source '{source}'; they have {', '.join(known)}", key="systems"
                )

    def read(self, item: Item) -> list[np.ndarray]:
        """The estimates of one item, each (channels, samples), in the order of its sources."""
        return [self._read(self.path(item.name, source), item.mixture) for source in item.sources]

    @staticmethod
    def _read(path: Path, mixture: Any) -> np.ndarray:
        try:
            audio, rate = soundfile.read(path, dtype="float64", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"cannot be read: {error}", file=path) from error
        channels, samples = mixture.audio_data.shape
        for what, expected, found in (
            ("sample rate", f"{mixture.sample_rate} Hz", f"{rate} Hz"),
            ("number of channels", channels, audio.shape[1]),
            ("length", f"{samples} samples", f"{audio.shape[0]} samples"),
        ):
            if expected != found:
                raise UserError(f"expected the mixture's {what}, {expected}, found {found}", file=path)
        return np.ascontiguousarray(audio.T)


def _check_present(files: _Files, items: Items) -> None:
    """Raises a UserError that counts and names missing files."""
    missing, total, known = [], 0, {}
    for index in range(len(items)):
        item = items.arrays(index)
        known |= dict.fromkeys(item.sources)
        paths = [files.path(item.name, source) for source in item.sources]
        total += len(paths)
        missing += [path for path in paths if not path.is_file()]
    files.check_sources(list(known))
    if missing:
        rest = f", {missing[1]}" * (len(missing) > 1) + " and others" * (len(missing) > 2)
        raise UserError(
            f"{len(missing)} of {total} estimates are missing: {missing[0]}{rest}; expected a file for every source "
            f"({', '.join(known)}) of every test item",
            key="systems",
        )


def _score_share(
    options: DatasetOptions, testers: Sequence[Tester], test: Mapping[str, Any], files: _Files, indexes: Sequence[int]
) -> list[tuple[str, dict[str, Any], ItemScores]]:
    """Name, conditions and scores of some items; one task of a worker process."""
    items = Items(test, options)
    with limited_threads(1):
        return [
            (item.name, conditions_of(item), score_estimates(item, files.read(item), testers))
            for item in (items[index] for index in indexes)
        ]
