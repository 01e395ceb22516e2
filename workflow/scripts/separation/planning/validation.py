"""Scores on the validation split, by which points are chosen whose losses do not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from separation.errors import UserError, nearest
from separation.experiment.testers import Tester, metrics_of
from separation.planning.points_table import loss_keys
from separation.planning.specs import JobSpec, evaluation_spec
from separation.planning.splits import Split
from separation.planning.workflow import Workflow

KEY = ("test_config", "validation_metric")
LOSS = "loss"
#: metrics for points whose losses differ; the first one that all evaluations measure
DEFAULTS = ("SI-SDR", "SDR", "STOI", "ESTOI", "PESQ")


@dataclass(frozen=True)
class Scored:
    """How a row of points.csv is scored.

    Attributes:
        algorithm_config, test_config: Normalized sections.
        testers: The testers in test_config.
        val: Validation split.
        hashes: Hashes of the user's own classes and metrics, by name.
    """

    algorithm_config: Mapping[str, Any]
    test_config: Mapping[str, Any]
    testers: tuple[Tester, ...]
    val: Split
    hashes: Mapping[str, str]

    @property
    def metrics(self) -> list[str]:
        """The metrics of the testers."""
        return [metric for tester in self.testers for metric in metrics_of(tester)]

    def job(self, metric: str) -> JobSpec:
        """The evaluation of the validation split, by the tester of one metric."""
        tester = next(tester for tester in self.testers if metric in metrics_of(tester))
        written = {"compute_permutation": tester.compute_permutation, **tester.args}
        if tester.user_metric is None:
            written["best_permutation_key"] = tester.best_permutation_key
        test_config = {"testers": [{tester.name: written}], "keep_estimates": "none"}
        return evaluation_spec(self.algorithm_config, test_config, self.val, self.hashes)


def add_validations(workflow: Workflow, scored: Mapping[tuple[str, str], Scored], asked: Sequence[str | None]) -> None:
    """Adds the validation scores that choose among the points of a workflow, if any are needed.

    Args:
        workflow: Workflow with all rows.
        scored: How each row is scored, by (point, evaluation).
        asked: The different values of test_config.validation_metric among the points.

    Raises:
        UserError: The validation metric is unknown, or differs between points.
    """
    metric = _metric(workflow, scored, asked)
    if metric is None:
        return
    for row in workflow.rows:
        how = scored[row.point, row.evaluation]
        job = how.job(metric)
        row.validation, row.validation_metric = job.id, metric
        workflow.validations[row.point, job.id] = (job, how.val)
        workflow.job_table.evaluations[job.id] = how.val.items_arguments


def _metric(workflow: Workflow, scored: Mapping[tuple[str, str], Scored], asked: Sequence[str | None]) -> str | None:
    """The metric that points are chosen by; None for the validation loss."""
    if len(asked) > 1:
        found = ", ".join("null" if name is None else name for name in asked)
        raise _error(workflow, f"expected one metric for all points of the sweep, found {found}")
    common = [
        name for name in next(iter(scored.values())).metrics if all(name in how.metrics for how in scored.values())
    ]
    if asked[0] == LOSS:
        return None
    if asked[0] is not None:
        if asked[0] not in common:
            hint = (
                nearest(asked[0], [LOSS, *common]) or f"; the testers measure {', '.join(common) or 'none in common'}"
            )
            raise _error(workflow, f"expected {LOSS} or a metric of the testers, found '{asked[0]}'{hint}")
        return asked[0]
    keys = loss_keys([row.swept for row in workflow.rows])
    if not keys or len(workflow.trainings) < 2:
        return None
    metric = next((name for name in (*DEFAULTS, *common) if name in common), None)
    differ = f"{workflow.experiment.document.file}: the points differ in {' and '.join(keys)}, so their losses do not "
    workflow.notices.append(
        f"{differ}compare: the best point is chosen by {metric} on the validation split "
        f"(test_config.validation_metric: {LOSS} chooses by validation loss)"
        if metric
        else f"{differ}compare, and their testers have no metric in common: the best point is chosen by validation loss"
    )
    return metric


def _error(workflow: Workflow, message: str) -> UserError:
    return workflow.experiment.document.error(message, KEY)
