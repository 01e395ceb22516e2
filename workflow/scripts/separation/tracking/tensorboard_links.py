"""Readable TensorBoard runs, with settings and test scores in the HParams tab.

A training job writes its curves to ARTIFACTS/<point>/tensorboard, which TensorBoard would show under the point's id.
results/tensorboard/<sweep>/<label> (<first digits of the id>) is a link to it; `make tensorboard` shows that folder.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment.config import default_config, load_settings
from separation.files.layout import TENSORBOARD_RUNS, PointFolder, logged_points
from separation.training.events import latest_events, read_events

# compared in the HParams tab
_METRICS = ("validation/loss", "train/loss", "test/SI-SDR", "test/SI-SDRi", "test/SDR")


def write_hparams(point: PointFolder, swept: Mapping[str, Any]) -> None:
    """Writes the swept settings of a point into its TensorBoard events.

    Args:
        point: The point's folder.
        swept: Swept settings by dotted key; lists and mappings are written as JSON.
    """
    from torch.utils.tensorboard.summary import hparams

    values = {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value) for key, value in swept.items()
    }
    experiment, start, _ = hparams(values, dict.fromkeys(_METRICS, 0.0))
    with _events(point, "hparams") as writer:
        writer.file_writer.add_summary(experiment)
        writer.file_writer.add_summary(start)


def write_scores(point: PointFolder, evaluation: str, means: Mapping[str, float], step: int) -> None:
    """Writes the mean test scores of one evaluation, as test/<metric>.

    Args:
        point: The point's folder.
        evaluation: Id of the evaluation; replaces its earlier scores.
        means: Mean score by metric.
        step: Step at which the scores appear, the number of epochs.
    """
    with _events(point, evaluation) as writer:
        for metric, value in means.items():
            writer.add_scalar(f"test/{metric}", value, step)


def _events(point: PointFolder, suffix: str) -> Any:
    """A writer of a separate events file, which replaces an earlier one with the same suffix."""
    from torch.utils.tensorboard import SummaryWriter

    for earlier in point.tensorboard.glob(f"*.{suffix}"):
        earlier.unlink()
    return SummaryWriter(str(point.tensorboard), filename_suffix=f".{suffix}")


def link_run(point: PointFolder, links: Path = TENSORBOARD_RUNS) -> Path | None:
    """Links a point's TensorBoard events under a readable name; None if its log has no name for it."""
    about = next((e.values for e in latest_events(read_events(point.events)) if e.kind == "point"), None)
    if about is None:
        return None
    sweep, label = (_folder_name(about.get(key) or default) for key, default in (("sweep", "sweep"), ("label", "")))
    link = links / sweep / f"{label} ({point.id[-12:-6]})"
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(point.tensorboard.absolute(), link.parent.absolute())
    if not (link.is_symlink() and os.readlink(link) == target):
        partial = link.with_name(f".{link.name}.{os.getpid()}")
        partial.symlink_to(target, target_is_directory=True)
        os.replace(partial, link)
    return link


def _folder_name(label: str) -> str:
    """A label without the characters that a folder name may not contain."""
    text = "".join("_" if letter in "/\\\0\n" else letter for letter in label).strip(" .")
    return text[:150] or "as written"


def main(arguments: list[str] | None = None) -> int:
    """The first step of `make tensorboard`: links all points and prints the folder of links."""
    argparse.ArgumentParser(
        prog="tensorboard_links", description="Link the runs of all points, drop dangling links, print their folder."
    ).parse_args(arguments)
    try:
        artifacts = load_settings(default_config(), os.environ).artifacts
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    TENSORBOARD_RUNS.mkdir(parents=True, exist_ok=True)
    for link in TENSORBOARD_RUNS.glob("*/*"):
        if link.is_symlink() and not link.exists():
            link.unlink()
    for point in logged_points(artifacts):
        link_run(point)
    print(TENSORBOARD_RUNS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
