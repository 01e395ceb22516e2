"""Reader of user files: the workflow's configuration, experiments and dataset recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.errors import UserError, nearest
from separation.experiment import schema
from separation.experiment.ids import normalized
from separation.experiment.legacy_files import translate
from separation.experiment.schema_defaults import with_defaults
from separation.experiment.sweep import Override
from separation.files.layout import DIRECTORY_VARIABLES
from separation.files.yaml_reader import Document, parse_yaml, read_yaml, resolve_scalar

ROOT = Path(__file__).resolve().parents[4]
EXPERIMENTS = Path("config/experiments")
DATASETS = Path("config/datasets")
# sections that describe a training; an experiment with only systems has none of them, and these are never used
_WITHOUT_TRAINING: dict[str, Any] = {
    "train_config": {"loss_function": [["L1Loss", "mask", 1.0]], "num_epochs": 1},
    "model_config": {
        "modules": {"mix_magnitude": {}},
        "connections": [["mask", ["mix_magnitude"]]],
        "output": ["mask"],
    },
    "algorithm_config": {"class": "DeepMaskEstimation"},
}
TRACKER_VARIABLES = {"comet": "COMET_API_KEY", "wandb": "WANDB_API_KEY", "mlflow": "MLFLOW_TRACKING_URI"}


@dataclass(frozen=True)
class Settings:
    """The workflow's configuration, checked.

    Attributes:
        sweep: Experiment file.
        overrides: Changes to it from the command line.
        data, cache, artifacts: Directories, as written; relative paths start at the working directory.
        container: Container image for jobs, in Snakemake's notation.
        resources: Resources of a job, by rule.
        offline: Whether downloads are forbidden.
        shards: Number of `mixtures` and of `files` per job.
        variables: Values of `${VAR}` in experiments and recipes.
        tracking: `mode` (live, offline or none), `names` of the active trackers, and the options of each by name.
        publishing: Destinations of a sweep's table; `sheet` is whether there are credentials for Google Sheets.
    """

    sweep: Path
    overrides: tuple[Override, ...]
    data: Path
    cache: Path
    artifacts: Path
    container: str
    resources: Mapping[str, Mapping[str, int]]
    variables: Mapping[str, str]
    tracking: Mapping[str, Any]
    publishing: Mapping[str, Any]
    offline: bool = False
    shards: Mapping[str, int] = field(default_factory=lambda: {"mixtures": 5000, "files": 5000})


@dataclass(frozen=True)
class Experiment:
    """An experiment file.

    Attributes:
        name: Name of the sweep, under results/sweeps.
        document: File as written.
        base: Its content with all defaults, without `sweep`, `systems` and `published`.
        notices: Keys of a legacy file that are ignored, one line each.
        systems: Estimates of other programs, with all defaults.
        published: Numbers from papers, with all defaults.
        trained: Whether it has points; otherwise it only scores systems.
    """

    name: str
    document: Document
    base: dict[str, Any]
    notices: tuple[str, ...] = ()
    systems: tuple[Mapping[str, Any], ...] = ()
    published: tuple[Mapping[str, Any], ...] = ()
    trained: bool = True


@dataclass(frozen=True)
class Recipe:
    """A dataset recipe with all defaults."""

    name: str
    document: Document
    value: dict[str, Any]


def load_settings(config: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Checks Snakemake's config and reads the directories from the environment.

    Raises:
        UserError: A key is unknown or of the wrong type, or there is no such experiment.
    """
    document = Document("config/config.yaml and --config", dict(config))
    schema.check(document, "config")
    value = with_defaults(document.value, "config")
    directories = {}
    for key, variable in DIRECTORY_VARIABLES.items():
        directories[key] = Path(environment.get(variable) or value["directories"][key])
    # files may use these although the user has not set them
    variables = {variable: str(directories[key]) for key, variable in DIRECTORY_VARIABLES.items()}
    return Settings(
        sweep=find_experiment(str(value["sweep"])),
        overrides=parse_overrides(value["set"] or ""),
        container=_container(environment.get("DOCKER_IMAGE_NAME") or value["container"]),
        resources=value["resources"],
        variables={**variables, **environment},
        tracking=_tracking(value, environment),
        publishing={**value["publishing"], "sheet": bool(environment.get("PATH_TO_GOOGLE_CREDENTIALS"))},
        offline=str(value["offline"]).lower() == "true",
        shards=value["shards"],
        **directories,
    )


def _tracking(value: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Active trackers and their options. No API key is read here, only whether it is set."""
    names = value["trackers"]
    if names == "auto":
        names = [name for name, variable in TRACKER_VARIABLES.items() if environment.get(variable)]
        if value["tracking"] == "offline" and not names:
            names = ["comet"]
    if value["tracking"] == "none":
        names = []
    return {"mode": value["tracking"], "names": list(names), **{name: value[name] for name in TRACKER_VARIABLES}}


def _container(image: str) -> str:
    """An image in Snakemake's notation: files, folders and URLs unchanged, names in a registry with docker://."""
    return image if "://" in image or Path(image).exists() else f"docker://{image}"


def default_config() -> dict[str, Any]:
    """The content of config/config.yaml."""
    return read_yaml(ROOT / "config" / "config.yaml").value


def find_experiment(sweep: str) -> Path:
    """The experiment file for `sweep`, which is a path or the name of a file in config/experiments.

    Raises:
        UserError: There is no such file.
    """
    if sweep.endswith((".yml", ".yaml")) or "/" in sweep:
        path = Path(sweep)
        if not path.is_absolute() and not path.exists() and (ROOT / path).exists():
            path = ROOT / path
        if not path.exists():
            raise UserError("no such file", file=sweep)
        return path
    for folder in (EXPERIMENTS, ROOT / EXPERIMENTS):
        for suffix in (".yml", ".yaml"):
            if (folder / f"{sweep}{suffix}").exists():
                return folder / f"{sweep}{suffix}"
    known = sorted(path.stem for path in (ROOT / EXPERIMENTS).glob("*.y*ml"))
    hint = nearest(sweep, known) or f"; expected one of {', '.join(known)}"
    raise UserError(f"no such experiment{hint}", file=f"{EXPERIMENTS}/{sweep}.yml")


def load_experiment(path: Path, variables: Mapping[str, str]) -> Experiment:
    """Reads and checks an experiment file.

    Raises:
        UserError: The file is missing or wrong.
    """
    document, notices = translate(read_yaml(path, variables), variables)
    trained = not _has_only_systems(document.value)
    value = document.value if trained else _with_training(document)
    if trained:
        schema.check(document, "experiment")
    elif mistake := schema.first_mistake(value, "experiment"):
        raise document.error(mistake[1], mistake[0])
    _check_finite(document, document.value, ())
    base = with_defaults(value, "experiment")
    del base["sweep"]
    systems, published = (tuple(base.pop(key)) for key in ("systems", "published"))
    name = base["info"]["name"] or path.stem
    return Experiment(name, document, base, tuple(notices), systems, published, trained)


def _has_only_systems(value: Any) -> bool:
    """Whether an experiment trains nothing and only scores estimates of other programs."""
    return isinstance(value, dict) and bool(value.get("systems")) and not any(key in value for key in _WITHOUT_TRAINING)


def _with_training(document: Document) -> dict[str, Any]:
    """The content of an experiment with only systems, with unused sections in place of those that it lacks."""
    if document.value.get("sweep"):
        missing = ", ".join(_WITHOUT_TRAINING)
        raise document.error(f"an experiment without {missing} trains nothing and has no sweep", ("sweep",))
    value = {**document.value, **_WITHOUT_TRAINING}
    datasets = value.get("datasets")
    if isinstance(datasets, dict) and "train" in datasets:
        # only the fixed mask of the baselines reads the training split, and nothing the validation split
        value["datasets"] = {"val": datasets["train"], **datasets}
    return value


def load_recipe(name: str, variables: Mapping[str, str]) -> Recipe:
    """Reads and checks config/datasets/<name>.yml.

    Raises:
        UserError: There is no such recipe, or it is wrong.
    """
    for folder in (DATASETS, ROOT / DATASETS):
        path = folder / f"{name}.yml"
        if path.exists():
            document = read_yaml(path, variables)
            schema.check(document, "dataset")
            _check_finite(document, document.value, ())
            return Recipe(name, document, with_defaults(document.value, "dataset"))
    known = sorted(path.stem for path in (ROOT / DATASETS).glob("*.yml"))
    hint = nearest(name, known) or f"; expected one of {', '.join(known)}"
    raise UserError(f"no such dataset{hint}", file=f"{DATASETS}/{name}.yml")


def parse_overrides(text: str) -> tuple[Override, ...]:
    """Reads `a.b=1,c.d=[x,y]`; commas inside brackets, braces or quotes do not separate.

    Raises:
        UserError: A part has no `=`, or its value does not parse.
    """
    overrides = []
    for part in _parts(text):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"expected key=value, found '{part.strip()}'", file="command line", key="set")
        value = value.strip()
        parsed = parse_yaml(value, file=f"command line: set={key}").value if value[:1] in "[{\"'" and value else None
        overrides.append(Override(key, parsed if parsed is not None else resolve_scalar(value)))
    return tuple(overrides)


def _parts(text: str) -> list[str]:
    parts, depth, quote, part = [], 0, "", ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append(part)
            part = ""
        else:
            part += character
    parts.append(part)
    return [part for part in parts if part.strip()]


def _check_finite(document: Document, value: Any, path: tuple) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(document, inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_finite(document, inner, (*path, index))
    elif isinstance(value, float):
        try:
            normalized(value)
        except ValueError as problem:
            raise document.error(str(problem), path) from None
