"""A point's whole config, put together from what determines its weights and from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from separation.experiment.ids import with_neutral


def options_of(run_options: Mapping[str, Any], point: str) -> Mapping[str, Any]:
    """The settings of a point that change no result."""
    return run_options["points"].get(point, run_options["common"])


def sheet_destination(run_options: Mapping[str, Any]) -> dict[str, Any]:
    """Where the table goes: `spreadsheet` and `worksheet`."""
    info, publishing = run_options["common"]["info"], run_options["publishing"]
    return {
        "spreadsheet": info.get("spreadsheet_name") or publishing["spreadsheet"],
        "worksheet": info.get("worksheet_name") or publishing["worksheet"] or run_options["sweep"],
    }


def complete_config(spec: Mapping[str, Any], options: Mapping[str, Any], point: str, folder: str) -> dict[str, Any]:
    """A point's whole config, itself a valid experiment file that leads to the same point.

    Args:
        spec: what determines the weights.
        options: the rest, see `options_of`.
        point: its id.
        folder: its folder.
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


def _with_key(value: Any, point: str) -> Any:
    """`${EXPERIMENT_KEY}` filled in, which is possible only once the id is known."""
    return value.replace("${EXPERIMENT_KEY}", point) if isinstance(value, str) else value
