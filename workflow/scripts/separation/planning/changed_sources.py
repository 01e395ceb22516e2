"""Before anything runs: are the files of a user's folders still those that datasets were made from?"""

from __future__ import annotations

import json
from pathlib import Path

from separation.errors import UserError
from separation.files.atomic import read_json, sha256_of, write_json
from separation.planning.workflow import Workflow

MANIFEST, TIMES = "manifest.json", "times.json"


def check_sources(workflow: Workflow) -> None:
    """Looks at every file of a user's folder that a source was made from; one with another time is hashed again.

    (A file of another size, or another name, gives the source another id: then everything is made anew.)

    Raises:
        UserError: the content of a file changed.
    """
    for source in workflow.sources:
        manifest = workflow.settings.data / source / "fetched" / MANIFEST
        if workflow.job_table.sources[source].get("folders") and manifest.exists():
            _check(manifest)


def _check(manifest: Path) -> None:
    place = manifest.with_name(TIMES)
    try:
        times = read_json(place) if place.exists() else {}
    except json.JSONDecodeError:
        times = {}
    newer = {}
    for path, known in times.items():
        try:
            found = (manifest.parent / path).stat().st_mtime_ns
        except OSError:
            continue  # the job that needs it says so
        if found != known:
            newer[path] = found
    if not newer:
        return
    digests = {entry["path"]: entry["sha256"] for entry in read_json(manifest)["files"]}
    for path in newer:
        file = manifest.parent / path
        if sha256_of(file) != digests[path]:
            raise UserError(
                f"its content changed since datasets were made from it; put the file back, or delete {manifest} to "
                "make everything that comes of it anew",
                file=file.resolve(),
            )
    write_json(place, times | newer)
