"""A trained point as something to use: found by its id, its folder, or the folder it was exported to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import UserError, nearest
from separation.files.yaml_reader import read_yaml

CHECKPOINT = "checkpoints/best.model.pth"
EXPORTED = "model.pth"


@dataclass(frozen=True)
class TrainedPoint:
    """One point.

    Attributes:
        folder: of the point, or of its export.
        checkpoint: the network of the lowest validation loss.
        config: its whole config.
    """

    folder: Path
    checkpoint: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """The point's id."""
        return str(self.config["info"].get("experiment_key") or self.folder.name)

    @property
    def in_order(self) -> bool:
        """Whether the estimates stand in the order of the sources: the tests of such a point search for none."""
        testers = (self.config.get("test_config") or {}).get("testers") or []
        args = [args or {} for tester in testers for args in tester.values()]
        return bool(args) and not any(each.get("compute_permutation") for each in args)


def find_point(model: str, artifacts: Path) -> TrainedPoint:
    """The point that is meant.

    Args:
        model: a point's id, its folder, its checkpoint, or a folder that `export` wrote.
        artifacts: ARTIFACTS.

    Raises:
        UserError: there is none, or it is not trained.
    """
    place = Path(model)
    if place.is_file() and place.suffix == ".pth":
        place = place.parent.parent if place.parent.name == "checkpoints" else place.parent
    if not place.is_dir():
        place = artifacts / model
    if not (place / "config.yml").is_file():
        known = [path.parent.name for path in sorted(artifacts.glob("*/config.yml"))] if artifacts.is_dir() else []
        raise UserError(
            f"expected the id of a point in {artifacts}, or a folder with its config.yml, found "
            f"{model!r}{nearest(model, known)}",
            key="model",
        )
    checkpoint = place / EXPORTED if (place / EXPORTED).is_file() else place / CHECKPOINT
    if not checkpoint.is_file():
        raise UserError(
            "the point is not trained; `snakemake train` with its config.yml as sweep= does", file=checkpoint
        )
    config = read_yaml(place / "config.yml").value
    if not isinstance(config, Mapping) or "algorithm_config" not in config:
        raise UserError("expected the config.yml of a point", file=place / "config.yml")
    return TrainedPoint(place, checkpoint, dict(config))
