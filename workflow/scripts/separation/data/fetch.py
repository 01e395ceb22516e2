"""The rule fetch_source: audio files of a source, downloaded, linked or synthesized."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from separation.data.manifests import finish_source_manifest, start_manifest, write_times
from separation.data.sources.access import Access
from separation.data.sources.folders import build_from_folders
from separation.data.sources.musdb import build_musdb
from separation.data.sources.toy_music import build_toy_music
from separation.data.sources.toy_speech import build_toy_speech
from separation.errors import UserError

logger = logging.getLogger(__name__)

# A builder takes (source, folder, access), writes or links its files below the folder, and returns `files`, dicts of
# path, split, song, class, frames, sample_rate, size and sha256, and `attribution`, the authors and the licence.
Builder = Callable[[dict[str, Any], Path, Access], dict[str, Any]]
BUILDERS: dict[str, Builder] = {
    "toy_music": lambda source, folder, access: build_toy_music(source.get("args") or {}, folder, access.workers),
    "toy_speech": lambda source, folder, access: build_toy_speech(
        source.get("args") or {}, folder, access.workers, access.downloads, access.offline
    ),
    "folder": build_from_folders,
    "script": build_from_folders,
    "musdb18": build_musdb,
}


def fetch_source(spec: dict[str, Any], manifest: Path, workers: int = 1, access: Access | None = None) -> None:
    """Fetches or builds the audio of a source: files or links beside the manifest.

    Args:
        spec: `source` with its `name`, its `kind` (one of BUILDERS) and the builder's `args`.
        manifest: Written last.
        workers: Number of processes; the files are the same bytes for any number.
        access: How the source is reached; the default uses `workers`.

    Raises:
        UserError: The kind is unknown, the builder refuses an argument, or a download fails.
    """
    source = spec["source"]
    if source["kind"] not in BUILDERS:
        raise UserError(f"expected one of {', '.join(sorted(BUILDERS))}, found {source['kind']!r}", key="source.kind")
    folder = start_manifest(manifest)
    built = BUILDERS[source["kind"]](source, folder, access or Access(workers))
    logger.info("%d files of source %s", len(built["files"]), source["name"])
    if "times" in built:
        write_times(manifest, built["files"])
    more = {key: built[key] for key in ("empty_folders", "name") if key in built}
    finish_source_manifest(
        manifest, spec, built["files"], built["attribution"], kept=built.get("kept", ()), **more
    )  # fmt: skip
