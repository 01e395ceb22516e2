"""Check before any job that a user's files are unchanged since datasets were built from them."""

from __future__ import annotations

import json
from pathlib import Path

from separation.errors import UserError
from separation.files.atomic import read_json, sha256_of, write_json
from separation.files.layout import file_times, source_manifest
from separation.planning.workflow import Workflow


def check_sources(workflow: Workflow) -> None:
    """Hashes every file in a user's folder whose time stamp changed since a source was built from it.

    A new name or size gives the source a new id, so everything derived from it is rebuilt without a check.

    Raises:
        UserError: The content of a file changed.
    """
    for source in workflow.sources:
        manifest = source_manifest(workflow.settings.data, source, "fetched")
        if workflow.job_table.sources[source].get("folders") and manifest.exists():
            _check(manifest)


def _check(manifest: Path) -> None:
    record = file_times(manifest)
    try:
        times = read_json(record) if record.exists() else {}
    except json.JSONDecodeError:
        times = {}
    newer = {}
    for path, known in times.items():
        try:
            found = (manifest.parent / path).stat().st_mtime_ns
        except OSError:
            continue  # reported by the job that reads it
        if found != known:
            newer[path] = found
    if not newer:
        return
    digests = {entry["path"]: entry["sha256"] for entry in read_json(manifest)["files"]}
    for path in newer:
        file = manifest.parent / path
        if sha256_of(file) != digests[path]:
            raise UserError(
                f"the content changed since datasets were built from it; restore the file, or delete {manifest} to "
                "rebuild everything derived from it",
                file=file.resolve(),
            )
    write_json(record, times | newer)
