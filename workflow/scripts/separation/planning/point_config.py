"""A point's config: split into spec and other settings for planning, put together again by jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from separation.experiment.ids import excluded_keys, with_neutral


def settings_outside_id(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of a point that change no weights, by section.

    Args:
        sections: All sections of its config, with normalized numbers.
    """
    return {
        "info": {key: value for key, value in sections["info"].items() if key != "seed"},
        "datasets": dict(sections["datasets"]),
        "dataset_config": {"cache": sections["dataset_config"]["cache"]},
        "train_config": {key: sections["train_config"][key] for key in excluded_keys("train_config")},
        "model_config": {"name": sections["model_config"]["name"]},
        "algorithm_config": dict(sections["algorithm_config"]),
        "test_config": dict(sections["test_config"]),
    }


def complete_config(spec: Mapping[str, Any], options: Mapping[str, Any], point: str, folder: str) -> dict[str, Any]:
    """A point's complete config, a valid experiment file that yields the same point.

    Args:
        spec: Everything that determines the weights.
        options: The other settings, see `JobTable.point`.
        point: Id of the point.
        folder: Folder of the point.
    """
    info = {**options["info"], **spec["info"], "name": point, "experiment_key": point, "output_folder": folder}
    cache = options["dataset_config"]["cache"]
    return {
        "info": {key: _with_key(value, point) for key, value in info.items()},
        "dataset_config": {**with_neutral(spec["dataset_config"], "dataset_config"), "cache": _with_key(cache, point)},
        "datasets": {key: dict(entry) for key, entry in options["datasets"].items()},
        "train_config": {**with_neutral(spec["train_config"], "train_config"), **options["train_config"]},
        "model_config": {**spec["model_config"], **options["model_config"]},
        "algorithm_config": options["algorithm_config"],
        "test_config": options["test_config"],
    }


def evaluation_config(config: Mapping[str, Any], spec: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A point's config under one evaluation.

    Args:
        config: The point's config.yml.
        spec: Everything that determines the scores.
        options: The other settings, see `JobTable.point`.
    """
    sections = {key: {**options[key], **spec[key]} for key in ("algorithm_config", "test_config")}
    return {**config, **sections}


def _with_key(value: Any, point: str) -> Any:
    """Replaces `${EXPERIMENT_KEY}`, which needs the id."""
    return value.replace("${EXPERIMENT_KEY}", point) if isinstance(value, str) else value
