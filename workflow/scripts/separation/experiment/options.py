"""Typed, frozen settings of one point, read once at the start of a job.

Fields have the names of the keys that users write; `class` is `class_`. Lists become tuples. The default of a missing
key is that of the schema, except for keys that came after the first release: an older config.yml has their neutral
value, at which they change nothing (separation.experiment.ids.NEUTRAL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from separation.errors import UserError
from separation.experiment.ids import with_neutral
from separation.experiment.schema_defaults import with_defaults
from separation.experiment.torch_networks import expanded


@dataclass(frozen=True)
class RemixOptions:
    """dataset_config.remix: new mixtures of sources from different items.

    Attributes:
        probability: Share of the excerpts that is remixed.
        gain: Limits of a source's gain, dB.
    """

    probability: float
    gain: tuple[float, float]


@dataclass(frozen=True)
class DatasetOptions:
    """dataset_config: how audio becomes training excerpts; see workflow/schemas/experiment.schema.yaml for each key."""

    sample_rate: int
    num_channels: int
    n_fft: int
    hop_length: int
    window_type: str
    length: int
    format: str
    group_sources: tuple[str, ...] | tuple[tuple[str, ...], ...]
    group_names: tuple[str, ...] | None
    ignore_sources: tuple[str, ...]
    source_labels: tuple[str, ...]
    output_type: str
    weight_type: tuple[str, ...]
    weight_threshold: float | None
    data_keys_for_training: tuple[str, ...]
    excerpt_selection_strategy: str
    remix: RemixOptions | None
    fraction_of_dataset: float
    cache: str | None
    cache_kind: str

    @classmethod
    def read(cls, dataset_config: Mapping[str, Any]) -> Self:
        """The options in a dataset_config, or in the part of one that a cache depends on.

        Raises:
            UserError: A key without a default is missing.
        """
        values = _values(cls, dataset_config, "dataset_config")
        if values["remix"] is not None:
            values["remix"] = RemixOptions(**{key: _frozen(value) for key, value in values["remix"].items()})
        return cls(**values)


@dataclass(frozen=True)
class TrainingOptions:
    """train_config: how the network is trained; see workflow/schemas/experiment.schema.yaml for each key."""

    class_: str
    batch_size: int
    curriculum_learning: tuple[Mapping[str, Any], ...]
    data_parallel: bool
    device: str
    initial_length: int | None
    learning_rate: float
    learning_rate_decay: float
    loss_function: tuple[tuple[Any, ...], ...]
    num_epochs: int
    num_workers: int
    optimizer: str
    checkpoint_minutes: float
    early_stopping: int | None
    ema_decay: float | None
    gradient_accumulation: int
    gradient_clipping: float | None
    learning_rate_schedule: str
    max_time: float | None
    num_gpus: int
    optimizer_args: Mapping[str, Any]
    patience: int
    precision: str
    sample_strategy: str
    save_by_epoch: int | None
    warmup_steps: int
    weight_decay: float

    @classmethod
    def read(cls, train_config: Mapping[str, Any]) -> Self:
        """The options in a train_config.

        Raises:
            UserError: A key without a default is missing.
        """
        return cls(**_values(cls, train_config, "train_config"))


@dataclass(frozen=True)
class NetworkOptions:
    """model_config: the network as nussl's SeparationModel reads it, and as it was written.

    `modules`, `connections` and `output` have lists where they were written, as checkpoints hold them. Those of any
    other class are derived from it, `args`, `axes` and `select`.
    """

    class_: str
    name: str
    modules: Mapping[str, Any]
    connections: list[Any]
    output: list[str]
    args: Mapping[str, Any]
    axes: Mapping[str, str] | None
    select: list[str | int]

    @classmethod
    def read(cls, model_config: Mapping[str, Any]) -> Self:
        """The options in a model_config.

        Raises:
            UserError: A key without a default is missing.
        """
        described = {key: value for key, value in expanded(model_config).items() if key not in ("class", "name")}
        return cls(**_values(cls, {**model_config, **described}, "model_config", freeze=False))


@dataclass(frozen=True)
class EvaluationOptions:
    """algorithm_config (`class_`, `args`) and test_config (the other keys): how the network separates and is scored."""

    class_: str
    args: Mapping[str, Any]
    testers: tuple[Mapping[str, Any], ...]
    num_workers: int
    keep_estimates: str | int
    validation_metric: str | None

    @classmethod
    def read(cls, algorithm_config: Mapping[str, Any], test_config: Mapping[str, Any]) -> Self:
        """The options in an algorithm_config and a test_config.

        Raises:
            UserError: A key without a default is missing.
        """
        algorithm = _values(cls, algorithm_config, "algorithm_config", ("class_", "args"))
        scoring = _values(
            cls, test_config, "test_config", ("testers", "num_workers", "keep_estimates", "validation_metric")
        )
        return cls(**algorithm, **scoring)


@dataclass(frozen=True)
class PointOptions:
    """All settings of a point.

    Attributes:
        point: The point's id; None for a config that no workflow has resolved.
        seed: Seed of all random choices.
        extras: Folder with the user's own classes.
        project_name, notes: Project of the trackers, and free text.
        dataset: Options of dataset_config.
        training: Options of train_config.
        network: Options of model_config.
        evaluation: Options of algorithm_config and test_config.
        written: The config as it is in config.yml, for ids and fingerprints.
    """

    point: str | None
    seed: int
    extras: str | None
    project_name: str | None
    notes: str | None
    dataset: DatasetOptions
    training: TrainingOptions
    network: NetworkOptions
    evaluation: EvaluationOptions
    written: Mapping[str, Any]

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """The options in a complete, resolved config, the content of a point's config.yml.

        Raises:
            UserError: A section, or a key without a default, is missing.
        """
        sections = ("dataset_config", "train_config", "model_config", "algorithm_config")
        dataset, training, network, algorithm = (_section(config, name) for name in sections)
        info = with_defaults(dict(config.get("info") or {}), "experiment", section="info")
        return cls(
            point=info["experiment_key"],
            seed=int(info["seed"]),
            extras=info["extras"],
            project_name=info["project_name"],
            notes=info["notes"],
            dataset=DatasetOptions.read(dataset),
            training=TrainingOptions.read(training),
            network=NetworkOptions.read(network),
            evaluation=EvaluationOptions.read(algorithm, config.get("test_config") or {}),
            written=config,
        )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if name not in config:
        raise UserError("missing section", key=name)
    return config[name]


def _values(
    cls: type, section: Mapping[str, Any], name: str, only: tuple[str, ...] | None = None, *, freeze: bool = True
) -> dict[str, Any]:
    """The value of each field of `cls`, or of those in `only`: as written, else neutral, else the schema's default."""
    complete = with_defaults(with_neutral(dict(section), name), "experiment", section=name)
    values = {}
    for field in only or [field.name for field in fields(cls)]:
        key = field.removesuffix("_")
        if key not in complete:
            raise UserError("missing key", key=f"{name}.{key}")
        values[field] = _frozen(complete[key]) if freeze else complete[key]
    return values


def _frozen(value: Any) -> Any:
    """`value` with lists, at any depth of lists, as tuples."""
    return tuple(_frozen(inner) for inner in value) if isinstance(value, (list, tuple)) else value
