"""Evaluation of a trained point: separates every item of a test split and scores the estimates."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas

from separation.data.items import Item, Items
from separation.data.scenes.activity import overlap
from separation.errors import UserError
from separation.evaluation.kept_audio import KeptItem, choose_items, publish_estimates, read_keep, write_item
from separation.evaluation.metrics import ItemScores, score_item
from separation.evaluation.separator import Separator
from separation.evaluation.user_metrics import all_testers, definitions_of, report_missing, score_user_metrics
from separation.experiment.options import PointOptions
from separation.experiment.testers import METRICS_OF, Tester
from separation.files.atomic import read_json, sha256_of, write_json, write_text
from separation.files.layout import MANIFEST, EvaluationFolder
from separation.files.score_table import NON_FINITE, SCORE_KEYS, write_score_table
from separation.machine.parallel import run_in_order
from separation.machine.threads import limited_threads

logger = logging.getLogger(__name__)

ESTIMATES = "estimates"  # kept audio, in the folder that an interrupted evaluation resumes from
RANKING = ("SI-SDR", "SDR", "STOI", "ESTOI", "PESQ")  # the first one measured ranks the items for listening

NAMED = 5  # estimates without a score that the log names

BATCH = 4  # items that go through the network together, fewer if they are long
BATCH_SECONDS = 60.0  # most audio in a batch, because the outputs of the network fill the memory
BATCHES_PER_TASK = 3  # batches that one process takes at a time; an interrupted evaluation loses at most these scores
SECONDS_PER_TASK = 100.0


@dataclass(frozen=True)
class _Job:
    """Arguments of every process of one evaluation."""

    options: PointOptions
    test: dict[str, Any]
    checkpoint: Path
    device: str
    threads: int
    batch: int
    folder: Path  # state from which an interrupted evaluation resumes
    keep_all: bool
    key: str  # identifies the evaluation; see _identity


@dataclass
class _Scored:
    """One scored item; `entry` is its entry in the index of estimates."""

    name: str
    conditions: dict[str, Any]
    result: ItemScores
    entry: dict[str, Any] | None = None

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> _Scored:
        return cls(**{**saved, "result": ItemScores(**saved["result"])})


def evaluate_point(
    options: PointOptions,
    *,
    point: str,
    evaluation: str,
    checkpoint: Path,
    test: Mapping[str, Any],
    scores: Path,
    state: Path | None = None,
    threads: int = 1,
    device: str = "cpu",
    audio: bool = True,
) -> None:
    """Evaluates one checkpoint on one split.

    Args:
        options: Settings of the point; those in `dataset`, `evaluation` and `seed` determine the scores.
        point: Id of the point, for the table.
        evaluation: Id of the evaluation, for the table.
        checkpoint: A nussl model file. Its metadata have the STFT parameters of the model.
        test: The test split; see `Items`.
        scores: Table to write (parquet): one row per item and source with the columns SCORE_KEYS, the testers' metrics
            in dB, and the mixing conditions of the item. Audio that `test_config.keep_estimates` keeps is written to
            the folder `estimates` beside it, the costs of the network to `costs.json`.
        state: Folder for the scores of finished shares of the items, from which an interrupted evaluation resumes; by
            default `.state` beside the table. It is removed at the end.
        threads: Number of processes that separate and score on a CPU, each with one thread; with a GPU, number of
            threads that cluster and score the outputs of the network, which runs in this process.
        device: Device of the model: cpu, cuda, or auto.
        audio: Whether to keep the audio of some items.

    The same checkpoint, data and config give the same table, whether or not the evaluation was interrupted, and on a
    CPU for any number of threads.

    Raises:
        UserError: The config, the checkpoint and the data do not fit together.
    """
    # torch takes seconds to import, and reading scores does not need it
    from separation.machine.torch_device import find_device

    items = Items(test, options.dataset)
    sample_rate = items[0].mixture.sample_rate if len(items) else None
    testers = all_testers(options.evaluation.testers, options.extras, sample_rate)
    keep = read_keep(options.evaluation.keep_estimates)
    if not len(items):
        raise UserError("expected mixtures to evaluate on, found none", file=items.folder)
    device = str(find_device(device))
    processes, threads = (threads, 1) if device == "cpu" else (1, threads)
    scores, checkpoint = Path(scores), Path(checkpoint)
    batch, share = _sizes(items.arrays(0).mixture.shape[-1] / _sample_rate(items))
    folder = Path(state) if state else scores.parent / ".state"
    ids = {"point": point, "evaluation": evaluation, "share": share, "batch": batch}
    key = json.dumps({**ids, **_identity(options, checkpoint, items)}, sort_keys=True, default=str)
    done = _resume(folder, key)
    job = _Job(options, dict(test), checkpoint, device, threads, batch, folder, audio and keep == "all", key)
    shares = [range(first, min(first + share, len(items))) for first in range(0, len(items), share)]
    missing = [indexes for indexes in shares if indexes.start not in done]
    count = sum(map(len, missing))
    if count < len(items):
        logger.info("%d of %d items were already scored", len(items) - count, len(items))
    began = time.perf_counter()
    arguments = [(job, indexes) for indexes in missing]
    scored = run_in_order(_score_share, arguments, workers=processes, items=f"shares of {share} items")
    done |= {indexes.start: found for indexes, found in zip(missing, scored, strict=True)}
    results = [item for indexes in shares for item in done[indexes.start]]
    if count:
        seconds = time.perf_counter() - began
        logger.info("separated and scored %d items, %.0f ms each", count, 1000 * seconds / count)

    roles = choose_items([_mean(item.result, testers) for item in results], keep) if audio else {}
    if roles and not job.keep_all:
        # the estimates of all items do not fit in memory, so the chosen items are separated again
        again = [(job, index, results[index].result) for index in roles]
        kept = run_in_order(_keep_item, again, workers=processes, items="items for listening")
        for index, entry in zip(roles, kept, strict=True):
            results[index].entry = entry
    if roles:
        entries = [{**results[index].entry, "role": role} for index, role in roles.items()]
        publish_estimates(folder / ESTIMATES, EvaluationFolder(scores.parent).estimates, entries)
    ids = {"point": point, "evaluation": evaluation, "dataset": items.dataset, "split": items.split}
    rows = [row for item in results for row in score_rows(item.name, item.conditions, item.result, ids)]
    write_scores(rows, scores, testers)
    write_json(EvaluationFolder(scores.parent).costs, _measure_costs(job, items))
    shutil.rmtree(folder, ignore_errors=True)


def _measure_costs(job: _Job, items: Items) -> dict[str, Any]:
    """The costs of the network; on a CPU with one thread. See `network_costs.network_costs`."""
    from separation.evaluation.network_costs import ITEMS, network_costs

    members = [items[index] for index in range(min(ITEMS, len(items)))]
    with limited_threads(1):
        return network_costs(_separator(job, members[0]), members, job.device)


def _sizes(seconds: float) -> tuple[int, int]:
    """The number of items in a batch and in a share, which depends only on the length of an item."""
    batch = max(1, min(BATCH, int(BATCH_SECONDS // seconds)))
    return batch, batch * max(1, min(BATCHES_PER_TASK, int(SECONDS_PER_TASK // (batch * seconds))))


def _sample_rate(items: Items) -> int:
    return items[0].mixture.sample_rate


def _identity(options: PointOptions, checkpoint: Path, items: Items) -> dict[str, Any]:
    """The inputs of the scores: finished shares are reused only if all of them are the same."""
    keys = ("dataset_config", "algorithm_config", "test_config", "info")
    manifest = items.folder / MANIFEST
    return {
        "config": {key: options.written.get(key) for key in keys},
        "checkpoint": sha256_of(checkpoint) if checkpoint.is_file() else "",
        # a rebuilt dataset has a new manifest, even if its content is the same
        "items": [manifest.stat().st_mtime_ns, sha256_of(manifest)] if manifest.is_file() else items.names,
        "folder": str(items.folder.resolve()),
    }


def _resume(folder: Path, key: str) -> dict[int, list[_Scored]]:
    """The finished shares of an interrupted evaluation with the same key, by their first item."""
    if not (folder / "key.json").is_file() or (folder / "key.json").read_text(encoding="utf-8") != key:
        shutil.rmtree(folder, ignore_errors=True)
        write_text(folder / "key.json", key)
        return {}
    return {int(path.stem): [_Scored.read(saved) for saved in read_json(path)] for path in folder.glob("[0-9]*.json")}


def _score_share(job: _Job, indexes: Sequence[int]) -> list[_Scored]:
    """Separates and scores some items and saves the result; one task of a worker process."""
    items = Items(job.test, job.options.dataset)
    testers = all_testers(job.options.evaluation.testers, job.options.extras)
    scored = []
    with limited_threads(1):
        separate = _separator(job, items[indexes[0]])

        def finish(item: Item, output: Any) -> _Scored:
            estimates = separate.estimates(item, output)
            result = score_estimates(item, estimates, testers)
            entry = write_item(job.folder / ESTIMATES, _kept(item, estimates, result)) if job.keep_all else None
            return _Scored(item.name, conditions_of(item), result, entry)

        if job.device == "cpu":
            for batch in _batches(indexes, job.batch):
                members = [items[index] for index in batch]
                scored += map(finish, members, separate.outputs(members))
        else:
            # the network is one batch ahead of the threads that cluster and score
            with ThreadPoolExecutor(job.threads) as pool:
                waiting: Iterator[_Scored] = iter(())
                for batch in _batches(indexes, job.batch):
                    members = [items[index] for index in batch]
                    following = pool.map(finish, members, separate.outputs(members))
                    scored += waiting
                    waiting = following
                scored += waiting
    write_text(
        job.folder / f"{indexes[0]:08d}.json",
        json.dumps([vars(item) | {"result": vars(item.result)} for item in scored]),
    )
    return scored


def _keep_item(job: _Job, index: int, result: ItemScores) -> dict[str, Any]:
    """Writes the estimates of one item and returns its entry in the index of estimates.

    The item goes through the network without its batch; the difference is far below the resolution of the audio.
    """
    item = Items(job.test, job.options.dataset)[index]
    with limited_threads(1):
        estimates = _separator(job, item)(item)
    return write_item(job.folder / ESTIMATES, _kept(item, estimates, result))


def _batches(indexes: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indexes[first : first + size] for first in range(0, len(indexes), size))


_separators: dict[tuple[str, str], Separator] = {}


def _separator(job: _Job, item: Item) -> Separator:
    """The separator of this process, kept for all shares, because setup takes as long as several items."""
    from separation.training.user_modules import load_extras

    if (job.key, job.device) not in _separators:
        load_extras(job.options)
        _separators.clear()
        _separators[job.key, job.device] = Separator(
            job.options.evaluation, item, checkpoint=job.checkpoint, device=job.device, seed=job.options.seed
        )
    return _separators[job.key, job.device]


def score_estimates(item: Item, estimates: Sequence[np.ndarray], testers: Sequence[Tester]) -> ItemScores:
    """Scores the estimates of one item; see `metrics.score_item` and `user_metrics.score_user_metrics`."""
    sources = {name: source.audio_data for name, source in item.sources.items()}
    mixture, sample_rate = item.mixture.audio_data, item.mixture.sample_rate
    built_in = [tester for tester in testers if tester.user_metric is None]
    result = score_item(sources, estimates, mixture, testers=built_in, sample_rate=sample_rate) if built_in else None
    if len(built_in) == len(testers):
        return result
    return score_user_metrics(item.name, sources, estimates, mixture, result, testers=testers, sample_rate=sample_rate)


def conditions_of(item: Item) -> dict[str, Any]:
    """The mixing conditions of an item, and those measured from its audio: `num_sources`, and `overlap`, the share of
    the active time in which two or more sources are active."""
    sources = [source.audio_data for source in item.sources.values()]
    measured = {"num_sources": len(sources), "overlap": overlap(sources, item.mixture.sample_rate)}
    return {**measured, **item.conditions}


def score_rows(
    item: str, conditions: Mapping[str, Any], result: ItemScores, ids: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The rows of the table for one item, one per source: SCORE_KEYS, metrics, NON_FINITE, conditions.

    `ids` has `point`, `evaluation`, `dataset` and `split`. Numbers among the conditions become floats. A condition
    with the name of another column gets the prefix "condition_".
    """
    rows = []
    for source, metrics in result.scores.items():
        row = {**{key: ids[key] for key in SCORE_KEYS[:4]}, "item": item, "source": source, **metrics}
        row[NON_FINITE] = source in result.non_finite
        taken = set(row)
        for name, value in conditions.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            row[f"condition_{name}" if name in taken else name] = float(value) if number else value
        rows.append(row)
    return rows


def write_scores(rows: Sequence[Mapping[str, Any]], scores: Path, testers: Sequence[Tester]) -> None:
    """Writes rows as parquet, atomically: SCORE_KEYS, then metrics, then conditions in order of appearance.

    Raises:
        UserError: One of the user's own metrics has no score at all.
    """
    table = pandas.DataFrame(list(rows))
    own = [tester.user_metric.column for tester in testers if tester.user_metric is not None]
    metrics = [name for names in METRICS_OF.values() for name in names if name in table] + own
    conditions = [name for name in table if name not in SCORE_KEYS and name not in metrics]
    # most data sets have no silent source
    metrics = [name for name in metrics if name != "LEAKAGE" or table[name].notna().any()]
    table = table[[*SCORE_KEYS, *metrics, *conditions]].astype(dict.fromkeys(metrics, "float64"))
    _report_non_finite(table)
    report_missing(table, testers)
    write_score_table(table, scores, definitions_of(testers))


def _report_non_finite(table: pandas.DataFrame) -> None:
    """Logs how many estimates have no score because of NaN or infinite samples, and names the first of them."""
    for point, rows in table[table[NON_FINITE]].groupby("point", sort=False):
        names = [f"{row.source} of item {row.item}" for row in rows.head(NAMED).itertuples()]
        more = f", and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        logger.warning(
            "%s: %d of %d estimates have NaN or infinite samples and no score: %s%s",
            *(point, len(rows), (table["point"] == point).sum(), ", ".join(names), more),
        )


def _mean(result: ItemScores, testers: Sequence[Tester]) -> float:
    """The number that ranks an item for listening; higher is better."""
    own = {tester.user_metric.column: tester.user_metric for tester in testers if tester.user_metric is not None}
    for metric in (*RANKING, *own):
        values = [scores.get(metric, math.nan) for scores in result.scores.values()]
        if not all(map(math.isnan, values)):
            mean = float(np.nanmean(values))
            return -mean if metric in own and not own[metric].higher_is_better else mean
    return math.nan


def _kept(item: Item, estimates: Sequence[np.ndarray], result: ItemScores) -> KeptItem:
    return KeptItem(
        name=item.name,
        sample_rate=item.mixture.sample_rate,
        mixture=item.mixture.audio_data,
        references={name: source.audio_data for name, source in item.sources.items()},
        estimates={name: estimates[index] for name, index in result.assignment.items()},
        scores=result.scores,
    )
