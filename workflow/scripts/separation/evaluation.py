"""Scores a trained point: separates every item of a test split with its checkpoint and compares with the sources."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from separation.data.items import Item, Items
from separation.data.parallel import run_in_order
from separation.errors import UserError
from separation.files import atomic_path
from separation.listening import KeptItem, choose_items, read_keep, write_estimates
from separation.metrics import METRICS_OF, ItemScores, Tester, read_testers, score_item
from separation.separator import Separator, limited_threads, resolve_device

logger = logging.getLogger(__name__)

KEYS = ("point", "evaluation", "dataset", "split", "item", "source")
SHARE = 25  # items that one process takes at a time: some seconds' worth
RANKING = ("SI-SDR", "SDR")  # the first that was measured ranks the items for listening


def evaluate_point(
    config: Mapping[str, Any],
    *,
    point: str,
    evaluation: str,
    checkpoint: Path,
    test: Mapping[str, Any],
    scores: Path,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Evaluates one checkpoint on one test split.

    Args:
        config: a resolved point: dataset_config, algorithm_config, test_config and info.seed are read.
        point: the point's id, for the table.
        evaluation: the evaluation's id, for the table.
        checkpoint: a nussl model file. Its metadata say which STFT the model sees.
        test: the split; see `Items`.
        scores: where the table goes (parquet): one row per item and source with the columns KEYS, the testers' metrics
            in dB, and the conditions the item was mixed under. Audio that `test_config.keep_estimates` keeps goes to
            the folder `estimates` beside it.
        threads: on a CPU how many items are separated at a time, each by one thread; else how many threads torch uses.
        device: where the model runs: cpu, cuda, or auto.

    The same checkpoint, data and config give the same table, on a CPU whatever the number of threads.

    Raises:
        UserError: what the config, the checkpoint and the data say does not fit.
    """
    items = Items(test, config["dataset_config"])
    read_testers(config.get("test_config") or {})
    keep = read_keep(config.get("test_config") or {})
    if not len(items):
        raise UserError("expected mixtures to evaluate on, found none", file=items.folder)
    device = resolve_device(device)
    processes, threads = (threads, 1) if device == "cpu" else (1, threads)
    began = time.perf_counter()
    shares = [range(first, min(first + SHARE, len(items))) for first in range(0, len(items), SHARE)]
    tasks = [(dict(config), dict(test), Path(checkpoint), device, threads, share) for share in shares]
    scored = run_in_order(_score_share, tasks, workers=processes, what="shares of items")
    results = [result for share in scored for result in share]
    seconds = time.perf_counter() - began
    logger.info("separated and scored %d items, %.0f ms each", len(items), 1000 * seconds / len(items))

    roles = choose_items([_mean(result) for _, _, result in results], keep)
    if roles:
        with limited_threads(threads):
            separate = _separator(config, items[0], Path(checkpoint), device)
            # separated again, with equal result, rather than all audio held until the best item is known
            kept = (
                _kept(items[index], role, separate(items[index]), results[index][2]) for index, role in roles.items()
            )
            write_estimates(Path(scores).parent / "estimates", kept, sample_rate=items[0].mixture.sample_rate)
    ids = {"point": point, "evaluation": evaluation, "dataset": items.dataset, "split": items.split}
    write_scores(
        [row for item, conditions, result in results for row in score_rows(item, conditions, result, ids)], scores
    )


def _score_share(
    config: Mapping[str, Any],
    test: Mapping[str, Any],
    checkpoint: Path,
    device: str,
    threads: int,
    indexes: Sequence[int],
) -> list[tuple[str, dict[str, Any], ItemScores]]:
    """Name, conditions and scores of some items; what a process of its own does where there are several."""
    items = Items(test, config["dataset_config"])
    testers = read_testers(config.get("test_config") or {})
    results = []
    with limited_threads(threads):
        separate = _separator(config, items[indexes[0]], checkpoint, device)
        for index in indexes:
            item = items[index]
            results.append((item.name, item.conditions, score_estimates(item, separate(item), testers)))
    return results


def _separator(config: Mapping[str, Any], item: Item, checkpoint: Path, device: str) -> Separator:
    from separation.extras_loading import load_extras

    load_extras(config)
    seed = int((config.get("info") or {}).get("seed") or 0)
    return Separator(config["algorithm_config"], item, checkpoint=checkpoint, device=device, seed=seed)


def score_estimates(item: Item, estimates: Sequence[np.ndarray], testers: Sequence[Tester]) -> ItemScores:
    """Scores the estimates of one item; see `metrics.score_item`."""
    return score_item(
        {name: source.audio_data for name, source in item.sources.items()},
        estimates,
        item.mixture.audio_data,
        testers=testers,
        sample_rate=item.mixture.sample_rate,
    )


def score_rows(
    item: str, conditions: Mapping[str, Any], result: ItemScores, ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows of the table for one item, one per source: KEYS, metrics, conditions.

    `ids` gives `point`, `evaluation`, `dataset` and `split`. Numbers among the conditions become floats. A condition
    that has the name of a column gets "condition_" in front.
    """
    rows = []
    for source, metrics in result.scores.items():
        row = {**{key: ids[key] for key in KEYS[:4]}, "item": item, "source": source, **metrics}
        taken = set(row)
        for name, value in conditions.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            row[f"condition_{name}" if name in taken else name] = float(value) if number else value
        rows.append(row)
    return rows


def write_scores(rows: Sequence[Mapping[str, Any]], scores: Path) -> None:
    """Writes rows as parquet, atomically: KEYS, then metrics, then conditions in the order they first appear."""
    table = pandas.DataFrame(list(rows))
    metrics = [name for names in METRICS_OF.values() for name in names if name in table]
    conditions = [name for name in table if name not in KEYS and name not in metrics]
    table = table[[*KEYS, *metrics, *conditions]].astype(dict.fromkeys(metrics, "float64"))
    with atomic_path(scores) as temporary:
        table.to_parquet(temporary, index=False)


def _mean(result: ItemScores) -> float:
    for metric in RANKING:
        values = [scores.get(metric, math.nan) for scores in result.scores.values()]
        if not all(map(math.isnan, values)):
            return float(np.nanmean(values))
    return math.nan


def _kept(item: Item, role: str, estimates: Sequence[np.ndarray], result: ItemScores) -> KeptItem:
    return KeptItem(
        name=item.name,
        role=role,
        mixture=item.mixture.audio_data,
        references={name: source.audio_data for name, source in item.sources.items()},
        estimates={name: estimates[index] for name, index in result.assignment.items()},
        scores=result.scores,
    )
