"""How a source is reached: the user's folders, downloads, or the output of a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.data.sources.downloads import fetch_file, unpack
from separation.files.atomic import link_atomically


@dataclass(frozen=True)
class Access:
    """Access to a source. It does not affect the contents of the source.

    Attributes:
        workers: Number of processes.
        downloads: Folder of downloaded files.
        offline: Whether downloads are forbidden.
        locations: Paths and URLs, see dataset_steps.Steps; `script_output` is the folder that its script wrote.
    """

    workers: int = 1
    downloads: Path = Path("results/data/downloads")
    offline: bool = False
    locations: Mapping[str, Any] = field(default_factory=dict)


def folders_of(access: Access) -> dict[str, Path]:
    """The folders of a source by name: a script's output, the user's own folders, or unpacked downloads.

    Raises:
        UserError: A download fails.
    """
    if "script_output" in access.locations:
        return {"": Path(access.locations["script_output"])}
    folders = {name: Path(path) for name, path in access.locations.get("folders", {}).items()}
    return folders or _downloaded_folders(access)


def _downloaded_folders(access: Access) -> dict[str, Path]:
    """The unpacked downloads; several are named after their files."""
    roots = {}
    for download in access.locations["download"]:
        fetched = fetch_file(download, access.downloads, offline=access.offline)
        name = download["file"].split(".")[0] if len(access.locations["download"]) > 1 else ""
        roots[name] = access.downloads / "unpacked" / download["checksum"].replace(":", "-")
        if download.get("unpack", True):
            unpack(fetched, roots[name])
        else:
            roots[name].mkdir(parents=True, exist_ok=True)
            link_atomically(roots[name] / fetched.name, str(fetched.resolve()))
    return roots
