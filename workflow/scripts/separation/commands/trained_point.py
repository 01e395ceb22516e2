"""A trained point, found by its id, its folder, or the folder it was exported to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from separation.errors import UserError, nearest
from separation.experiment.options import PointOptions
from separation.files.layout import ExportFolder, PointFolder, point_folders
from separation.files.yaml_reader import read_yaml


@dataclass(frozen=True)
class TrainedPoint:
    """A trained point.

    Attributes:
        folder: Folder of the point or of its export.
        checkpoint: Network with the lowest validation loss.
        options: Settings of the point.
    """

    folder: Path
    checkpoint: Path
    options: PointOptions

    @property
    def name(self) -> str:
        """The point's id."""
        return self.options.point or self.folder.name

    @property
    def in_order(self) -> bool:
        """Whether the estimates are in the order of the sources: the point was tested without permutations."""
        args = [args or {} for tester in self.options.evaluation.testers for args in tester.values()]
        return bool(args) and not any(each.get("compute_permutation") for each in args)

    @property
    def score_tables(self) -> list[Path]:
        """The scores of its evaluations, one table each; empty for an export."""
        return [folder.scores for folder in PointFolder(self.folder).evaluations() if folder.scores.exists()]


def find_point(model: str, artifacts: Path) -> TrainedPoint:
    """Finds a trained point.

    Args:
        model: A point's id, its folder, its checkpoint, or a folder that `make export` wrote.
        artifacts: ARTIFACTS.

    Raises:
        UserError: There is no such point, or it is not trained.
    """
    path = Path(model)
    if path.is_file() and path.suffix == ".pth":
        path = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if not path.is_dir():
        path = artifacts / model
    point, export = PointFolder(path), ExportFolder(path)
    if not point.config.is_file():
        known = [other.id for other in point_folders(artifacts)]
        raise UserError(
            f"expected the id of a point in {artifacts}, or a folder with its config.yml, found "
            f"{model!r}{nearest(model, known)}",
            key="model",
        )
    checkpoint = export.checkpoint if export.checkpoint.is_file() else point.best_checkpoint
    if not checkpoint.is_file():
        raise UserError(
            f"the point is not trained; run: snakemake train --config sweep={point.config}", file=checkpoint
        )
    config = read_yaml(point.config).value
    if not isinstance(config, Mapping) or "algorithm_config" not in config:
        raise UserError("expected the config.yml of a point", file=point.config)
    return TrainedPoint(path, checkpoint, PointOptions.read(config))
