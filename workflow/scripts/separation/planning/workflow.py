"""From an experiment to everything that its workflow has to make, each thing under the id of its contents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment import config as configuration
from separation.experiment.compatibility import check_config, check_data
from separation.experiment.ids import (
    STAGE_VERSIONS,
    canonical_json,
    digest,
    excluded_keys,
    joined_json,
    normalized,
    slug,
    text_digest,
    without_excluded,
)
from separation.experiment.sweep import Point, Sweep
from separation.experiment.user_classes import Extras, find_extras
from separation.files.listing import listing
from separation.files.yaml_reader import KeyPath, dotted
from separation.planning.dataset_steps import Dataset, Work, steps_of
from separation.planning.points_table import Row, fill_varying_keys
from separation.planning.splits import SPLITS, Split

# what of dataset_config decides what a cache of features holds; excerpts and weights are cut and derived on reading
CACHED_KEYS = (
    "sample_rate", "num_channels", "n_fft", "hop_length", "window_type", "group_sources", "group_names",
    "ignore_sources", "source_labels", "output_type",
)  # fmt: skip
# a cache of audio holds the same for all targets and data keys
AUDIO_CACHED_KEYS = tuple(key for key in CACHED_KEYS if key != "output_type")
AUDIO_ARRAYS = ("mix_audio", "source_audio")
# what of dataset_config decides what the baselines separate
BASELINE_KEYS = tuple(key for key in CACHED_KEYS if key != "output_type")

_TRAINING_VERSIONS = canonical_json({key: STAGE_VERSIONS[key] for key in ("features", "train")})


@dataclass
class Training:
    """A point: everything that determines its weights, and what it is made from."""

    id: str
    spec: str
    splits: dict[str, Split]
    caches: dict[str, str]
    num_gpus: int = 1


@dataclass
class Section:
    """One section of a config: as the sweep gives it, normalised, and as canonical JSON of what determines results."""

    written: dict[str, Any]
    value: dict[str, Any]
    identity: str


class Workflow:
    """All that an experiment asks for.

    Attributes:
        sources, organized, resampled: by path below DATA, what each step makes.
        datasets: by id.
        mixtures: by (dataset id, split).
        shards: into how many jobs the mixtures of (dataset id, split) and the files of (source, resampled) are divided.
        caches: by (cache id, split).
        trainings: by point id, in the sweep's order.
        evaluations: by (point id, evaluation id).
        baselines: by id.
        rows: of points.csv.
        notices: lines that the user should see.
        run_options: settings that change no result, for the jobs; see `options_of`.
    """

    def __init__(
        self,
        experiment: configuration.Experiment,
        settings: configuration.Settings,
        reachable: Callable[[], str] | None = None,
    ):
        self.experiment, self.settings, self._reachable = experiment, settings, reachable
        self.sources: dict[str, Work] = {}
        self.organized: dict[tuple[str, str], Work] = {}
        self.resampled: dict[tuple[str, str], tuple[str, Work]] = {}
        self.datasets: dict[str, Dataset] = {}
        self.mixtures: dict[tuple[str, str], Work] = {}
        self.shards: dict[tuple[str, str], int] = {}
        self.caches: dict[tuple[str, str], tuple[Work, Split]] = {}
        self.trainings: dict[str, Training] = {}
        self.evaluations: dict[tuple[str, str], tuple[Work, Split]] = {}
        self.baselines: dict[str, tuple[Work, Split, Split]] = {}
        self.rows: list[Row] = []
        self.notices: list[str] = list(experiment.notices)
        self.run_options: dict[str, Any] = {
            "common": None,
            "points": {},
            "caches": {},
            "evaluations": {},
            "baselines": {},
            "places": {},
            "downloads": str(settings.data / "downloads"),
            "offline": settings.offline,
        }
        self._recipes: dict[str, Dataset] = {}
        self._checked: dict[tuple[int, ...], Point] = {}
        self._sections: dict[int, Section] = {}
        self._computed: dict[tuple, Any] = {}
        self._noted: set[tuple] = set()
        self._listings: dict[str, list] = {}
        self._found_extras: dict[str | None, Extras] = {}
        self._cache_workers: dict[tuple[str, str], int] = {}
        self._expand()
        self.run_options["sweep_file"] = experiment.document.file
        self.run_options["overrides"] = {override.key: override.value for override in settings.overrides}
        self.run_options["datasets"] = {item.id: item.name for item in self.datasets.values()}
        self.run_options["artifacts"] = str(settings.artifacts)
        self.run_options["sweep"] = experiment.name
        self.run_options["tracking"] = settings.tracking
        self.run_options["publishing"] = settings.publishing
        # what people call a point; where it has several evaluations, as the first one does
        self.run_options["labels"] = {
            row.point: {"label": " | ".join(dict.fromkeys(row.labels)), "swept": row.swept} for row in self.rows[::-1]
        }
        self.run_options["source_folders"] = [str(settings.data / source) for source in self.sources]

    # points ------------------------------------------------------------------------------------------------------

    def _expand(self) -> None:
        sweep = Sweep(self.experiment.document, self.experiment.base, self.settings.overrides)
        rows: dict[tuple[str, str], Row] = {}
        expanded: list[tuple[Point, Row]] = []
        for point in sweep.points():
            row = self._add(point)
            row = rows.setdefault((row.point, row.evaluation), row)
            row.swept = point.swept | row.swept
            if point.block not in row.blocks:
                row.blocks.append(point.block)
            expanded.append((point, row))
        self.rows = list(rows.values())
        fill_varying_keys(expanded)
        self.notices += dict.fromkeys(sweep.notices)
        shared = len(expanded) - len(self.rows)
        if shared:
            self.notices.append(
                f"{self.experiment.document.file}: {shared} of {len(expanded)} points of the sweep equal another one "
                f"and are made once"
            )

    def _check(self, point: Point) -> None:
        """Raises a UserError where the point's parts do not fit; parts that points share are looked at once."""
        # parts that a sweep leaves alone are the same objects in every point
        parts = [
            point.config[key]
            for key in ("dataset_config", "datasets", "model_config", "algorithm_config", "test_config")
        ]
        training = point.config["train_config"]
        # numbers and words are seldom the same object: they count by value
        words = (training["optimizer"], point.config["info"]["extras"])
        seen = (*map(id, [*parts, training["loss_function"]]), *words)
        if seen in self._checked:
            return
        mistake = check_config(point.config, self._extras(point.config["info"]["extras"]))
        for split in SPLITS:
            entry = point.config["datasets"][split]
            if mistake is None and "dataset" in entry:
                dataset = self._dataset(entry["dataset"])
                if entry.get("split", split) in dataset.splits:
                    mistake = check_data(point.config, split, dataset.recipe)
        if mistake is not None:
            raise self._mistake(point, *mistake)
        self._checked[seen] = point

    def _mistake(self, point: Point, path: KeyPath, message: str) -> UserError:
        """Points at the sweep's line where that set the key, else at the key."""
        origin = path
        while origin and origin not in point.origins:
            origin = origin[:-1]
        place = point.origins.get(origin, ()) or path
        error = self.experiment.document.error(message, place)
        return UserError(message, file=error.file, line=error.line, key=dotted(path))

    def _add(self, point: Point) -> Row:
        """Notes what a point needs, and gives its row."""
        self._check(point)
        config = {name: self._section(name, section) for name, section in point.config.items()}
        splits = self._once(self._splits, config, "datasets")
        seed = config["info"].value["seed"]
        extras = self._extras(config["info"].value["extras"])
        own = extras.hashes(point.config, "model_config", "train_config")
        parts = {
            "dataset_config": config["dataset_config"].identity,
            "datasets": canonical_json({key: splits[key].identity for key in ("train", "val")}),
            "model_config": config["model_config"].identity,
            "train_config": config["train_config"].identity,
            "versions": _TRAINING_VERSIONS,
            **({"extras": canonical_json(own)} if own else {}),
        }
        spec = joined_json({**parts, "info": canonical_json({"seed": seed})})
        method = self._once(_method, config, "train_config")
        point_id = f"{method}-{slug(splits['train'].name)}-s{seed}-{text_digest(spec)}"
        training = self.trainings.get(point_id)
        if training is None:
            cached = config["dataset_config"].value["cache"]
            caches = self._once(self._caches, config, "dataset_config", "datasets") if cached else {}
            training = Training(point_id, spec, splits, caches, config["train_config"].value["num_gpus"])
            self.trainings[point_id] = training
            self._remember_options(point_id, config, splits)
        elif training.spec != spec:
            raise UserError(f"two different points have the id {point_id}; change info.seed of one of them")
        self._note_caches(training, point)
        names = ("algorithm_config", "test_config", "datasets")
        work, test = self._once(self._evaluation, config, *names, also=(config["info"].value["extras"],))
        self.evaluations[point_id, work.id] = (work, test)
        baselines = self._once(self._baselines, config, "dataset_config", "test_config", "datasets")
        group = text_digest(joined_json({**parts, "evaluation": canonical_json(work.id)}))
        return Row(point_id, work.id, baselines, {}, [], [], seed, group)

    def _extras(self, folder: str | None) -> Extras:
        """The user's own classes in a folder, looked for once."""
        if folder not in self._found_extras:
            self._found_extras[folder] = find_extras(folder)
        return self._found_extras[folder]

    def _section(self, name: str, value: dict[str, Any]) -> Section:
        """A section of a config, normalised and with the JSON that goes into ids; shared ones are made once."""
        known = self._sections.get(id(value))
        if known is None:
            normal = normalized(value)
            # `written` keeps the object alive, so that its id stays its own
            known = Section(value, normal, canonical_json(without_excluded(normal, name)))
            self._sections[id(value)] = known
        return known

    def _once(self, function: Callable[..., Any], config: Mapping[str, Section], *names: str, also: tuple = ()) -> Any:
        """What a function gives for sections of a config, and other values `also`, computed once for equal ones."""
        key = (function.__name__, *(id(config[name].written) for name in names), *also)
        if key not in self._computed:
            self._computed[key] = function(*(config[name].value for name in names), *also)
        return self._computed[key]

    def _splits(self, datasets: dict[str, Any]) -> dict[str, Split]:
        return {key: self._split(key, datasets[key]) for key in SPLITS}

    def _evaluation(
        self,
        algorithm_config: dict[str, Any],
        test_config: dict[str, Any],
        datasets: dict[str, Any],
        extras: str | None,
    ) -> tuple[Work, Split]:
        test = self._split("test", datasets["test"])
        identity = {
            "algorithm_config": without_excluded(algorithm_config, "algorithm_config"),
            "test_config": without_excluded(test_config, "test_config"),
            "test": test.identity,
            "versions": {"evaluate": STAGE_VERSIONS["evaluate"]},
        }
        own = self._extras(extras).hashes({"algorithm_config": algorithm_config}, "algorithm_config")
        if own:
            identity["extras"] = own
        evaluation = f"{slug(test.name)}-{digest(identity)}"
        self.run_options["evaluations"][evaluation] = test.reader
        return Work(evaluation, canonical_json(identity)), test

    def _baselines(self, dataset_config: dict[str, Any], test_config: dict[str, Any], datasets: dict[str, Any]) -> str:
        splits = self._splits(datasets)
        identity = {
            "dataset_config": {key: dataset_config[key] for key in BASELINE_KEYS},
            "train": splits["train"].identity,
            "test": splits["test"].identity,
            "testers": test_config["testers"],
            "versions": {"baselines": STAGE_VERSIONS["baselines"]},
        }
        baselines = f"{slug(splits['test'].name)}-{digest(identity)}"
        work = Work(baselines, canonical_json(identity))
        self.baselines.setdefault(baselines, (work, splits["train"], splits["test"]))
        self.run_options["baselines"][baselines] = {key: splits[key].reader for key in ("train", "test")}
        return baselines

    def _caches(self, dataset_config: dict[str, Any], datasets: dict[str, Any]) -> dict[str, str]:
        ids = {}
        if dataset_config["cache_kind"] == "audio":
            cached_keys, arrays = AUDIO_CACHED_KEYS, list(AUDIO_ARRAYS)
        else:
            cached_keys = CACHED_KEYS
            arrays = sorted(name for name in dataset_config["data_keys_for_training"] if name != "weights")
        for key, split in self._splits(datasets).items():
            identity = {
                "dataset": split.identity["id"],
                "opener": split.opener,
                "dataset_config": {name: dataset_config[name] for name in cached_keys},
                "keys": arrays,
                "kind": dataset_config["cache_kind"],
                "versions": {"features": STAGE_VERSIONS["features"]},
            }
            ids[key] = f"{slug(split.name)}-{digest(identity)}"
            place = (ids[key], split.split)
            self.caches.setdefault(place, (Work(ids[key], canonical_json(identity)), split))
            self.run_options["caches"]["/".join(place)] = split.reader
        return ids

    def _note_caches(self, training: Training, point: Point) -> None:
        """Asks for a point's caches as its block says: to be filled, by how many workers, or to be there."""
        noted = (*training.caches.values(), point.populate_cache, point.num_cache_workers)
        if noted in self._noted:
            return
        self._noted.add(noted)
        for key, cache in training.caches.items():
            place = (cache, training.splits[key].split)
            if not point.populate_cache:
                self._require_cache(place)
            if point.num_cache_workers is not None:
                self._cache_workers[place] = max(point.num_cache_workers, self._cache_workers.get(place, 0))

    def _require_cache(self, place: tuple[str, str]) -> None:
        manifest = self.settings.cache / place[0] / f"{place[1]}.json"
        if not manifest.exists():
            file = self.experiment.document.file
            raise UserError(
                f"populate_cache is false and the cache {manifest} is missing; fill it with: "
                f"snakemake cache --config sweep={file} set=populate_cache=true",
                file=file,
            )

    # data --------------------------------------------------------------------------------------------------------

    def _split(self, key: str, entry: dict[str, Any]) -> Split:
        return self._made_split(key, entry) if "dataset" in entry else self._users_split(key, entry)

    def _made_split(self, key: str, entry: dict[str, Any]) -> Split:
        name, split = entry["dataset"], entry.get("split", key)
        dataset = self._dataset(name)
        if split not in dataset.splits:
            raise self.experiment.document.error(
                f"the dataset {name} has no split '{split}'; it has {', '.join(dataset.splits)}", ("datasets", key)
            )
        folder = self.settings.data / dataset.id / split
        kept = {inner: value for inner, value in entry.items() if inner in ("dataset", "split")}
        return Split(dataset.id, name, split, str(folder), str(folder / "manifest.json"), kept)

    def _users_split(self, key: str, entry: dict[str, Any]) -> Split:
        folder = Path(entry["folder"])
        if not folder.is_dir():
            raise self.experiment.document.error(
                f"no such folder: {folder} (relative paths start at the repository's root)", ("datasets", key, "folder")
            )
        kept = {inner: value for inner, value in entry.items() if inner != "folder"}
        if str(folder) not in self._listings:
            self._listings[str(folder)] = listing(folder)
        files = self._listings[str(folder)]
        if not files:
            raise self.experiment.document.error(f"the folder {folder} is empty", ("datasets", key, "folder"))
        dataset = f"{slug(entry['class'])}-{digest({'listing': files, **kept})}"
        return Split(dataset, entry["class"], key, str(folder), None, kept)

    def _dataset(self, name: str) -> Dataset:
        if name in self._recipes:
            return self._recipes[name]
        steps = steps_of(configuration.load_recipe(name, self.settings.variables), self.settings, self._reachable)
        source, organized, resampled = steps.source.id, steps.organized.id, steps.resampled.id
        self.sources[source] = steps.source
        self.organized[source, organized] = steps.organized
        self.resampled[source, resampled] = (organized, steps.resampled)
        for split, work in steps.mixtures.items():
            self.mixtures[work.id, split] = work
            self.shards[work.id, split] = steps.mix_shards[split]
        self.shards[source, resampled] = steps.resample_shards
        self.run_options["places"][source] = steps.places
        self.notices += steps.notices
        self.datasets[steps.dataset.id] = self._recipes[name] = steps.dataset
        return steps.dataset

    # settings that change no result ------------------------------------------------------------------------------

    def _remember_options(self, point_id: str, config: Mapping[str, Section], splits: Mapping[str, Split]) -> None:
        train_config = config["train_config"].value
        options = {
            "info": {key: value for key, value in config["info"].value.items() if key != "seed"},
            "datasets": config["datasets"].value,
            "dataset_config": {"cache": config["dataset_config"].value["cache"]},
            "train_config": {key: train_config[key] for key in excluded_keys("train_config")},
            "model_config": {"name": config["model_config"].value["name"]},
            "algorithm_config": config["algorithm_config"].value,
            "test_config": config["test_config"].value,
            "readers": {key: split.reader for key, split in splits.items()},
        }
        if self.run_options["common"] is None:
            self.run_options["common"] = options
        elif options != self.run_options["common"]:
            self.run_options["points"][point_id] = options

    def mixtures_of_shard(self, dataset: str, split: str, number: int) -> tuple[int, int]:
        """The first mixture of a shard, and the one after its last."""
        total = self.datasets[dataset].recipe["mixture_parameters"][split]["num_mixtures"]
        count = self.shards[dataset, split]
        return total * number // count, total * (number + 1) // count

    def cache_workers(self, cache: str, split: str, default: int) -> int:
        """Worker processes that fill a cache: `num_cache_workers` of the block, else `default`."""
        return max(1, self._cache_workers.get((cache, split), default))

    # the table ---------------------------------------------------------------------------------------------------

    def table(self) -> list[dict[str, Any]]:
        """The rows of points.csv."""
        return [
            {
                "point": row.point,
                "evaluation": row.evaluation,
                "baselines": row.baselines,
                "label": " | ".join(dict.fromkeys(row.labels)),
                "swept": row.swept,
                "block": ";".join(str(block) for block in row.blocks),
                "seed": row.seed,
                "group": row.group,
            }
            for row in self.rows
        ]


def _method(train_config: Mapping[str, Any]) -> str:
    """A short name of what is trained, after its losses: dpcl, mi, chimera or time."""
    losses = {str(loss[0]).lower() for loss in train_config["loss_function"]}
    clusters = any(name in loss for loss in losses for name in ("deepclustering", "whitenedkmeans", "dpcl"))
    estimates = any(loss for loss in losses if not any(n in loss for n in ("deepclustering", "whitenedkmeans", "dpcl")))
    if clusters:
        return "chimera" if estimates else "dpcl"
    if any("sisdr" in loss or "snr" in loss for loss in losses):
        return "time"
    return "mi"


def load_workflow(
    config: Mapping[str, Any],
    environment: Mapping[str, str],
    reachable: Callable[[configuration.Settings], str] | None = None,
) -> Workflow:
    """Reads the configuration and the experiment that it names.

    Args:
        config: Snakemake's.
        environment: variables.
        reachable: asked where a recipe takes what it can get; see recipes.steps_of.

    Raises:
        UserError: in one line, where something that a user wrote is wrong.
    """
    settings = configuration.load_settings(config, environment)
    experiment = configuration.load_experiment(settings.sweep, settings.variables)
    return Workflow(experiment, settings, reachable and (lambda: reachable(settings)))
