"""Everything that an experiment's workflow builds, as plain data for the rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from separation.experiment.config import Experiment, Settings
from separation.files.layout import downloads_folder
from separation.planning.dataset_steps import Dataset
from separation.planning.points_table import PointRow
from separation.planning.run_options import JobTable, RunOptions
from separation.planning.specs import JobSpec
from separation.planning.splits import Split


@dataclass(frozen=True)
class Training:
    """A point: its id, everything that determines its weights, and its data.

    Attributes:
        id: Id of the point.
        spec: Canonical JSON that the weights depend on.
        splits: Splits by train, val and test.
        caches: Ids of caches by split; {} trains without caches.
        num_gpus: Number of processes that train it together, each on one GPU.
    """

    id: str
    spec: str
    splits: dict[str, Split]
    caches: dict[str, str]
    num_gpus: int = 1


@dataclass
class Workflow:
    """All work of an experiment.

    Attributes:
        sources: Specs by source id.
        organized: Specs by (source, folder).
        resampled: Folder of the organized source, and spec, by (source, folder).
        datasets: Datasets by id.
        mixtures: Specs by (dataset id, split).
        shards: Number of jobs for the mixtures of (dataset id, split), or for the files of (source, folder).
        caches: Spec and split by (cache id, split).
        cache_workers: Worker processes by (cache id, split), if a block of the sweep sets num_cache_workers.
        trainings: Training runs by point id, in the sweep's order.
        evaluations: Spec and test split by (point id, evaluation id).
        validations: Spec and validation split by (point id, evaluation id), where points are chosen by a score.
        systems: Spec and test split of the scores of other programs' estimates, by id.
        baselines: Spec, training split and test split by id.
        rows: Rows of points.csv.
        notices: Lines for the user.
        job_table: Settings of points and splits that change no result, for the jobs.
    """

    experiment: Experiment
    settings: Settings
    sources: dict[str, JobSpec] = field(default_factory=dict)
    organized: dict[tuple[str, str], JobSpec] = field(default_factory=dict)
    resampled: dict[tuple[str, str], tuple[str, JobSpec]] = field(default_factory=dict)
    datasets: dict[str, Dataset] = field(default_factory=dict)
    mixtures: dict[tuple[str, str], JobSpec] = field(default_factory=dict)
    shards: dict[tuple[str, str], int] = field(default_factory=dict)
    caches: dict[tuple[str, str], tuple[JobSpec, Split]] = field(default_factory=dict)
    cache_workers: dict[tuple[str, str], int] = field(default_factory=dict)
    trainings: dict[str, Training] = field(default_factory=dict)
    evaluations: dict[tuple[str, str], tuple[JobSpec, Split]] = field(default_factory=dict)
    validations: dict[tuple[str, str], tuple[JobSpec, Split]] = field(default_factory=dict)
    systems: dict[str, tuple[JobSpec, Split]] = field(default_factory=dict)
    baselines: dict[str, tuple[JobSpec, Split, Split]] = field(default_factory=dict)
    rows: list[PointRow] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    job_table: JobTable = field(default_factory=JobTable)

    @property
    def run_options(self) -> RunOptions:
        """The options of every job besides its params."""
        return RunOptions(
            sweep=self.experiment.name,
            sweep_file=self.experiment.document.file,
            overrides={override.key: override.value for override in self.settings.overrides},
            artifacts=str(self.settings.artifacts),
            downloads=str(downloads_folder(self.settings.data)),
            offline=self.settings.offline,
            tracking=dict(self.settings.tracking),
            publishing=dict(self.settings.publishing),
            table=self.job_table.file(self.experiment.name),
        )

    def mixtures_of_shard(self, dataset: str, split: str, number: int) -> tuple[int, int]:
        """The first mixture of a shard, and the one after its last."""
        total = self.datasets[dataset].recipe["mixture_parameters"][split]["num_mixtures"]
        count = self.shards[dataset, split]
        return total * number // count, total * (number + 1) // count

    def collected(self) -> Any:
        """Everything besides scores that the sweep's tables depend on, as JSON values.

        `points`, `systems` and `published`; only the rows if there are no others, as before there were systems.
        """
        published = list(self.experiment.published)
        if not self.systems and not published:
            return self.table()
        return {"points": self.table(), "systems": sorted(self.systems), "published": published}

    def table(self) -> list[dict[str, Any]]:
        """The rows of points.csv, as JSON values."""
        return [row.as_record() for row in self.rows]
