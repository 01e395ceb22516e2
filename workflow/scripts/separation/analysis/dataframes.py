"""Settings and scores of finished sweeps as pandas tables, for notebooks and comparisons of sweeps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from separation.analysis.summarize import best_point
from separation.analysis.sweep_tables import (
    lowest_validation_loss,
    read_histories,
    read_points,
    read_scores,
    selection,
    to_csv_text,
)
from separation.errors import UserError, nearest
from separation.experiment import config as configuration
from separation.experiment.key_paths import flatten
from separation.experiment.metric_definitions import all_definitions
from separation.files.atomic import read_json
from separation.files.layout import SWEEPS, PointFolder, SweepFiles
from separation.files.score_table import is_reference, read_user_metrics
from separation.files.yaml_reader import read_yaml

# Keys of a point's config.yml that are not settings; the seed has its own column
NAME_KEYS = ("info.name", "info.notes", "info.experiment_key", "info.output_folder", "info.seed")


def artifacts_folder() -> Path:
    """The folder of the points: ARTIFACTS_DIRECTORY, or the setting in config/config.yaml."""
    return configuration.load_settings(configuration.default_config(), os.environ).artifacts


def find_sweep(name: str, sweeps: Path | None = None) -> SweepFiles:
    """The results of a sweep.

    Args:
        name: Name of the sweep, or its experiment file.
        sweeps: Folder of all sweeps.

    Raises:
        UserError: No results have that name, or the sweep has no scores yet.
    """
    sweeps = SWEEPS if sweeps is None else Path(sweeps)
    if name.endswith((".yml", ".yaml")):
        name = configuration.load_experiment(configuration.find_experiment(name), os.environ).name
    files = SweepFiles(sweeps / name)
    if not name or not files.path.is_dir():
        known = [folder.name for folder in sorted(sweeps.glob("*")) if SweepFiles(folder).points.exists()]
        hint = nearest(name, known) or (f"; known are {', '.join(known)}" if known else "; there are no results yet")
        raise UserError(f"expected the name of a sweep with results in {sweeps}, found '{name}'{hint}", key="sweeps")
    for table in (files.points, files.scores, files.summary):
        if not table.exists():
            file = read_json(files.record)["file"] if files.record.exists() else name
            raise UserError(
                f"the sweep '{name}' is not evaluated yet; run: snakemake --config sweep={file}", file=table
            )
    return files


def config_of(artifacts: Path, point: str, evaluation: str = "") -> dict[str, Any]:
    """The complete settings of a point, or of one of its evaluations: dotted key -> value.

    Raises:
        UserError: The point's config.yml is missing.
    """
    folder = PointFolder(artifacts / point)
    for path in (folder.evaluation(evaluation).config, folder.config) if evaluation else (folder.config,):
        if path.is_file():
            flat = flatten(read_yaml(path).value)
            return {key: value for key, value in flat.items() if key not in NAME_KEYS}
    raise UserError("the settings of the point are missing; run the workflow to restore them", file=folder.config)


def test_data_of(artifacts: Path, point: str, evaluation: str) -> str:
    """The id of the test data of an evaluation, "" if unknown."""
    path = PointFolder(artifacts / point).evaluation(evaluation).spec
    if not path.is_file():
        return ""
    return str(read_json(path)["test"].get("id", ""))


def load_settings(sweeps: Sequence[str], artifacts: Path | None = None) -> pd.DataFrame:
    """The settings of all points of sweeps: one row per sweep, point and evaluation.

    Returns:
        Columns `sweep`, `point`, `evaluation`, `label`, `seed`, `group`, `best` (in its sweep), `validation_loss`, then
        every dotted key of the points' config.yml; values are numbers, strings, or JSON of anything else.
    """
    artifacts = artifacts_folder() if artifacts is None else Path(artifacts)
    rows = []
    for name in sweeps:
        files = find_sweep(name)
        points = read_points(files.points)
        losses = {
            point: lowest_validation_loss(history) for point, history in read_histories(points, artifacts).items()
        }
        best = best_point(points, selection(points, losses, all_definitions(read_user_metrics(files.scores))))
        for row in points.to_dict("records"):
            known = {key: row.get(key, "") for key in ("point", "evaluation", "label", "seed", "group")}
            known |= {"best": row["point"] == best, "validation_loss": losses.get(row["point"])}
            config = config_of(artifacts, row["point"], row["evaluation"])
            rows.append({"sweep": files.name, **known, **{key: _cell(value) for key, value in config.items()}})
    return pd.DataFrame(rows)


def load_scores(sweeps: Sequence[str], artifacts: Path | None = None, *, baselines: bool = False) -> pd.DataFrame:
    """The scores of sweeps with settings beside them: one row per sweep, point, evaluation, item and source.

    Args:
        sweeps: Names of sweeps, or experiment files.
        artifacts: Folder of the points; by default that of the workflow.
        baselines: Whether to include baselines and oracles, which have no settings.

    Returns:
        The columns of scores.parquet (metrics, mixing conditions, `cluster`: its songs or speakers) and of
        `load_settings`.
    """
    settings = load_settings(sweeps, artifacts)
    frames = []
    for name in sweeps:
        files = find_sweep(name)
        scores = read_scores(files.scores).assign(sweep=files.name)
        is_baseline = scores["point"].map(is_reference)
        frames.append(scores if baselines else scores[~is_baseline])
    gathered = pd.concat(frames, ignore_index=True)
    return gathered.merge(settings, on=["sweep", "point", "evaluation"], how="left")


def varying_settings(settings: pd.DataFrame) -> list[str]:
    """The dotted keys of `load_settings` with more than one value; a missing key counts as a value."""
    keys = [key for key in settings.columns if "." in key]
    return [key for key in keys if settings[key].map(to_csv_text).nunique() > 1]


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else to_csv_text(value)
