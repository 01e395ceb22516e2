"""Scores of estimates that other programs made, on the test splits of an experiment."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.experiment.ids import STAGE_VERSIONS, canonical_json, digest, slug
from separation.files.listing import dated_listing
from separation.planning.specs import BASELINE_KEYS, JobSpec
from separation.planning.splits import Split
from separation.planning.workflow import Workflow

#: keys of dataset_config that determine the true sources; the STFT plays no part
AUDIO_KEYS = tuple(key for key in BASELINE_KEYS if key not in ("n_fft", "hop_length", "window_type"))
FIELDS = ("item", "source")


def check_systems(workflow: Workflow) -> None:
    """Checks the sections `systems` of the experiment.

    Raises:
        UserError: Two systems have one name, a folder does not exist or is empty, or a pattern is wrong.
    """
    document, names = workflow.experiment.document, set()
    for number, system in enumerate(workflow.experiment.systems):
        path = ("systems", number)
        if system["name"] in names:
            raise document.error(f"two systems have the name '{system['name']}'", (*path, "name"))
        names.add(system["name"])
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(system["pattern"]) if name is not None]
        except ValueError as error:
            raise document.error(f"not a pattern: {error}", (*path, "pattern")) from None
        if sorted(fields) != sorted(FIELDS):
            raise document.error(
                f"expected {{item}} and {{source}}, each once, found '{system['pattern']}'", (*path, "pattern")
            )
        folder = Path(system["folder"]).expanduser()
        if not folder.is_dir():
            raise document.error(
                f"no such folder: {folder} (relative paths start at the repository's root)", (*path, "folder")
            )
        if not any(folder.iterdir()):
            raise document.error(f"the folder {folder} is empty", (*path, "folder"))


def add_systems(
    workflow: Workflow,
    dataset_config: Mapping[str, Any],
    test_config: Mapping[str, Any],
    test: Split,
    extras: str | None,
    metric_hashes: Mapping[str, str],
) -> None:
    """Adds the scores of all systems on one test split, by the testers of the points.

    Names, sizes and dates of the estimates enter the id, the path of their folder does not.

    Args:
        workflow: Workflow to add to.
        dataset_config, test_config: Normalized sections.
        test: Test split.
        extras: Folder of the user's own metrics.
        metric_hashes: Hashes of the user's own metrics that test_config names.
    """
    for system in workflow.experiment.systems:
        folder = Path(system["folder"]).expanduser()
        identity = {
            "system": {key: system[key] for key in ("name", "pattern", "sources")},
            "estimates": digest(dated_listing(folder)),
            "dataset_config": {key: dataset_config[key] for key in AUDIO_KEYS},
            "test": test.identity,
            "testers": test_config["testers"],
            "versions": {"systems": STAGE_VERSIONS["systems"]},
            **({"extras": dict(metric_hashes)} if metric_hashes else {}),
        }
        job = JobSpec(f"{slug(system['name'])}-{digest(identity)}", canonical_json(identity))
        workflow.systems[job.id] = (job, test)
        options = {"test": test.items_arguments, "folder": str(folder), "extras": extras}
        # with the STFT, which items carry along
        options["dataset_config"] = {key: dataset_config[key] for key in BASELINE_KEYS}
        workflow.job_table.systems.setdefault(job.id, options)
