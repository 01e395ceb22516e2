"""From an experiment file to its workflow: expands the sweep and collects the work of all points."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment import config as configuration
from separation.experiment.compatibility import check_config, check_data, check_testers
from separation.experiment.ids import digest, slug
from separation.experiment.sweep import Point, Sweep
from separation.experiment.testers import read_testers
from separation.experiment.torch_networks import package_version
from separation.experiment.user_classes import find_extras
from separation.experiment.user_metrics import find_user_metrics
from separation.files.layout import cache_manifest, split_manifest
from separation.files.listing import listing
from separation.files.yaml_reader import KeyPath, dotted
from separation.planning.dataset_steps import Dataset, steps_of
from separation.planning.point_config import settings_outside_id
from separation.planning.points_table import PointRow, fill_varying_keys
from separation.planning.specs import (
    JobSpec,
    Section,
    baselines_spec,
    cache_spec,
    evaluation_spec,
    section_of,
    setting_digest,
    training_parts,
    training_spec,
)
from separation.planning.splits import SPLITS, Split
from separation.planning.systems import add_systems, check_systems
from separation.planning.validation import Scored, add_validations
from separation.planning.workflow import Training, Workflow

_CHECKED_SECTIONS = ("dataset_config", "datasets", "model_config", "algorithm_config", "test_config")


def load_workflow(
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    unreachable_reason: Callable[[configuration.Settings], str] | None = None,
) -> Workflow:
    """Reads the configuration and its experiment.

    Args:
        config: Snakemake's config.
        environment: Environment variables.
        unreachable_reason: Called for recipes that use the available recordings; see dataset_steps.steps_of.

    Raises:
        UserError: A user's file or setting is wrong; one line.
    """
    settings = configuration.load_settings(config, environment)
    experiment = configuration.load_experiment(settings.sweep, settings.variables)
    return _Expansion(experiment, settings, unreachable_reason and (lambda: unreachable_reason(settings))).workflow


class _Memo:
    """Calls functions once for the same sections.

    A section that no point changes is the same object in all points, so a large sweep finds most results here. Sections
    are compared by identity, which is cheap, and kept alive, so that an identity stays unique. Other arguments, such as
    strings, are compared by value.
    """

    def __init__(self) -> None:
        self._results: dict[tuple, Any] = {}
        self._alive: list[Any] = []

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        key = (function, *self._keys(arguments))
        if key not in self._results:
            self._results[key] = function(*arguments)
            self._alive.append(arguments)
        return self._results[key]

    def is_new(self, *arguments: Any) -> bool:
        """Whether this method is called with these arguments for the first time."""
        if (key := self._keys(arguments)) in self._results:
            return False
        self._results[key] = None
        self._alive.append(arguments)
        return True

    @staticmethod
    def _keys(arguments: tuple) -> tuple:
        return tuple(id(one) if isinstance(one, (dict, list, Section)) else one for one in arguments)


class _Expansion:
    """Fills a workflow, point by point."""

    def __init__(
        self,
        experiment: configuration.Experiment,
        settings: configuration.Settings,
        unreachable_reason: Callable[[], str] | None,
    ):
        self._experiment, self._settings, self._unreachable_reason = experiment, settings, unreachable_reason
        self._once = _Memo()
        self._listing, self._extras = functools.cache(listing), functools.cache(find_extras)
        self._recipes: dict[str, Dataset] = {}
        self.workflow = Workflow(experiment, settings, notices=list(experiment.notices))
        check_systems(self.workflow)
        if experiment.trained:
            self._expand()
        else:
            self._score_only()
        table = self.workflow.job_table
        table.datasets = {item.id: item.name for item in self.workflow.datasets.values()}
        table.source_folders = [str(settings.data / source) for source in self.workflow.sources]
        # a point with several evaluations has the label of the first
        table.labels = {row.point: {"label": row.label, "swept": row.swept} for row in self.workflow.rows[::-1]}

    # points ------------------------------------------------------------------------------------------------------

    def _expand(self) -> None:
        sweep = Sweep(self._experiment.document, self._experiment.base, self._settings.overrides)
        rows: dict[tuple[str, str], PointRow] = {}
        self._scored: dict[tuple[str, str], Scored] = {}
        self._asked: dict[str | None, None] = {}
        expanded: list[tuple[Point, PointRow]] = []
        for point in sweep.points():
            row = self._add(point)
            row = rows.setdefault((row.point, row.evaluation), row)
            row.swept = point.swept | row.swept
            if point.block not in row.blocks:
                row.blocks.append(point.block)
            expanded.append((point, row))
        self.workflow.rows = list(rows.values())
        fill_varying_keys(expanded)
        add_validations(self.workflow, self._scored, list(self._asked))
        self.workflow.notices += dict.fromkeys(sweep.notices)
        duplicates = len(expanded) - len(rows)
        if duplicates:
            self.workflow.notices.append(
                f"{self._experiment.document.file}: {duplicates} of {len(expanded)} points are duplicates and run once"
            )

    def _score_only(self) -> None:
        """Adds the baselines and the systems of an experiment that trains nothing."""
        base, document = self._experiment.base, self._experiment.document
        mistake = check_testers(base, self._extras(base["info"]["extras"]))
        for split in ("train", "test"):
            if mistake is None and "dataset" in base["datasets"][split]:
                mistake = check_data(base, split, self._dataset(base["datasets"][split]["dataset"]).recipe)
        if mistake is not None:
            raise document.error(mistake[1], mistake[0])
        config = {name: section_of(name, section).value for name, section in base.items()}
        splits = self._splits(config["datasets"])
        self.workflow.job_table.common = settings_outside_id(config)
        self._baselines(config["dataset_config"], config["test_config"], splits, config["info"]["extras"])

    def _add(self, point: Point) -> PointRow:
        """Adds the work of a point to the workflow, and returns its row."""
        self._check(point)
        config = {name: self._once(section_of, name, section) for name, section in point.config.items()}
        info, dataset_config, train_config = (config[name].value for name in ("info", "dataset_config", "train_config"))
        splits = self._once(self._splits, config["datasets"].value)
        user_class_hashes = self._extras(info["extras"]).hashes(point.config, "model_config", "train_config")
        parts = training_parts(config, splits, user_class_hashes, package_version(config["model_config"].value))
        job = training_spec(parts, train_config, splits["train"].name, info["seed"])
        training = self.workflow.trainings.get(job.id)
        if training is None:
            caches = (
                self._once(self._caches, dataset_config, config["datasets"].value) if dataset_config["cache"] else {}
            )
            training = Training(job.id, job.spec, splits, caches, train_config["num_gpus"])
            self.workflow.trainings[job.id] = training
            options: dict[str, Any] = settings_outside_id({name: section.value for name, section in config.items()})
            options["splits"] = {key: split.items_arguments for key, split in splits.items()}
            self.workflow.job_table.add_point(job.id, options)
        elif training.spec != job.spec:
            raise UserError(f"two different points have the id {job.id}; change info.seed of one of them")
        self._apply_cache_keys(training, point)
        evaluated = [config[name].value for name in ("algorithm_config", "test_config")]
        evaluation, test = self._once(self._evaluation, *evaluated, splits, info["extras"])
        self.workflow.evaluations[job.id, evaluation.id] = (evaluation, test)
        self._asked[config["test_config"].value["validation_metric"]] = None
        self._scored[job.id, evaluation.id] = self._once(self._how_scored, *evaluated, splits, info["extras"])
        baselines = self._once(self._baselines, dataset_config, config["test_config"].value, splits, info["extras"])
        group = setting_digest(parts, evaluation.id)
        return PointRow(job.id, evaluation.id, baselines, {}, [], [], info["seed"], group)

    def _splits(self, datasets: dict[str, Any]) -> dict[str, Split]:
        return {key: self._split(key, datasets[key]) for key in SPLITS}

    def _evaluation(
        self,
        algorithm_config: dict[str, Any],
        test_config: dict[str, Any],
        splits: dict[str, Split],
        extras: str | None,
    ) -> tuple[JobSpec, Split]:
        test = splits["test"]
        hashes = self._once(self._how_scored, algorithm_config, test_config, splits, extras).hashes
        job = evaluation_spec(algorithm_config, test_config, test, hashes)
        self.workflow.job_table.evaluations[job.id] = test.items_arguments
        return job, test

    def _how_scored(
        self,
        algorithm_config: dict[str, Any],
        test_config: dict[str, Any],
        splits: dict[str, Split],
        extras: str | None,
    ) -> Scored:
        found, testers = self._extras(extras), test_config["testers"]
        hashes = found.hashes({"algorithm_config": algorithm_config}, "algorithm_config")
        hashes |= found.metric_hashes(testers)
        read = read_testers(testers, user_metrics=find_user_metrics(found, testers))
        return Scored(algorithm_config, test_config, tuple(read), splits["val"], hashes)

    def _baselines(
        self,
        dataset_config: dict[str, Any],
        test_config: dict[str, Any],
        splits: dict[str, Split],
        extras: str | None,
    ) -> str:
        metric_hashes = self._extras(extras).metric_hashes(test_config["testers"])
        job = baselines_spec(dataset_config, test_config, splits, metric_hashes)
        train, test = splits["train"], splits["test"]
        self.workflow.baselines.setdefault(job.id, (job, train, test))
        of_job = {"train": train.items_arguments, "test": test.items_arguments, "extras": extras}
        self.workflow.job_table.baselines[job.id] = of_job
        add_systems(self.workflow, dataset_config, test_config, test, extras, metric_hashes)
        return job.id

    # checks ------------------------------------------------------------------------------------------------------

    def _check(self, point: Point) -> None:
        """Raises a UserError if the sections of a point do not fit; sections that points share are checked once."""
        config, extras = point.config, point.config["info"]["extras"]
        sections = [config[key] for key in _CHECKED_SECTIONS]
        # only these keys of train_config matter, and sweeps often vary the others
        training = (config["train_config"]["loss_function"], config["train_config"]["optimizer"])
        if not self._once.is_new(*sections, *training, extras):
            return
        mistake = check_config(config, self._extras(extras))
        for split in SPLITS:
            entry = config["datasets"][split]
            if mistake is None and "dataset" in entry:
                dataset = self._dataset(entry["dataset"])
                if entry.get("split", split) in dataset.splits:
                    mistake = check_data(config, split, dataset.recipe)
        if mistake is not None:
            raise self._error_at(point, *mistake)

    def _error_at(self, point: Point, path: KeyPath, message: str) -> UserError:
        """An error at the line of the sweep if the sweep sets the key, else at the key itself."""
        origin = path
        while origin and origin not in point.origins:
            origin = origin[:-1]
        error = self._experiment.document.error(message, point.origins.get(origin, ()) or path)
        return UserError(message, file=error.file, line=error.line, key=dotted(path))

    # caches ------------------------------------------------------------------------------------------------------

    def _caches(self, dataset_config: dict[str, Any], datasets: dict[str, Any]) -> dict[str, str]:
        """The ids of the caches of all splits."""
        ids = {}
        for key, split in self._once(self._splits, datasets).items():
            job = cache_spec(dataset_config, split)
            ids[key] = job.id
            self.workflow.caches.setdefault((job.id, split.split), (job, split))
            self.workflow.job_table.caches[f"{job.id}/{split.split}"] = split.items_arguments
        return ids

    def _apply_cache_keys(self, training: Training, point: Point) -> None:
        """Applies populate_cache and num_cache_workers of a point's block to its caches."""
        workers = self.workflow.cache_workers
        for key, cache in training.caches.items():
            split = training.splits[key].split
            if not point.populate_cache:
                self._once(self._require_cache, cache, split)
            if point.num_cache_workers is not None:
                workers[cache, split] = max(point.num_cache_workers, workers.get((cache, split), 0))

    def _require_cache(self, cache: str, split: str) -> None:
        manifest, file = cache_manifest(self._settings.cache, cache, split), self._experiment.document.file
        if not manifest.exists():
            raise UserError(
                f"populate_cache is false and the cache {manifest} is missing; fill it with: "
                f"snakemake cache --config sweep={file} set=populate_cache=true",
                file=file,
            )

    # data --------------------------------------------------------------------------------------------------------

    def _split(self, key: str, entry: dict[str, Any]) -> Split:
        return self._mixed_split(key, entry) if "dataset" in entry else self._users_split(key, entry)

    def _mixed_split(self, key: str, entry: dict[str, Any]) -> Split:
        """A split that the workflow mixes."""
        name, split = entry["dataset"], entry.get("split", key)
        dataset = self._dataset(name)
        if split not in dataset.splits:
            raise self._experiment.document.error(
                f"the dataset {name} has no split '{split}'; it has {', '.join(dataset.splits)}", ("datasets", key)
            )
        manifest = split_manifest(self._settings.data, dataset.id, split)
        kept = {inner: value for inner, value in entry.items() if inner in ("dataset", "split")}
        return Split(dataset.id, name, split, str(manifest.parent), str(manifest), kept)

    def _users_split(self, key: str, entry: dict[str, Any]) -> Split:
        """A user's own folder of mixtures."""
        folder = Path(entry["folder"])
        if not folder.is_dir():
            raise self._experiment.document.error(
                f"no such folder: {folder} (relative paths start at the repository's root)", ("datasets", key, "folder")
            )
        kept = {inner: value for inner, value in entry.items() if inner != "folder"}
        files = self._listing(folder)
        if not files:
            raise self._experiment.document.error(f"the folder {folder} is empty", ("datasets", key, "folder"))
        dataset = f"{slug(entry['class'])}-{digest({'listing': files, **kept})}"
        return Split(dataset, entry["class"], key, str(folder), None, kept)

    def _dataset(self, name: str) -> Dataset:
        """A dataset of a recipe; its steps are added to the workflow."""
        if name in self._recipes:
            return self._recipes[name]
        recipe = configuration.load_recipe(name, self._settings.variables)
        steps, workflow = steps_of(recipe, self._settings, self._unreachable_reason), self.workflow
        source, organized, resampled = steps.source.id, steps.organized.id, steps.resampled.id
        workflow.sources[source] = steps.source
        workflow.organized[source, organized] = steps.organized
        workflow.resampled[source, resampled] = (organized, steps.resampled)
        for split, job in steps.mixtures.items():
            workflow.mixtures[job.id, split] = job
            workflow.shards[job.id, split] = steps.mix_shards[split]
        workflow.shards[source, resampled] = steps.resample_shards
        workflow.job_table.sources[source] = steps.locations
        workflow.notices += steps.notices
        workflow.datasets[steps.dataset.id] = self._recipes[name] = steps.dataset
        return steps.dataset
