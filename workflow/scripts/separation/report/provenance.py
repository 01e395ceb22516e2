"""Provenance of results: experiment file, commit, versions, datasets and their licences."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PACKAGES = ("snakemake", "nussl", "scaper", "torch", "zarr", "numpy", "pandas")
_LICENCES = ("LICENSE*", "LICENCE*", "ATTRIBUTION*")


def provenance_of(
    sweep_file: Path,
    *,
    notes: str | None,
    overrides: Mapping[str, Any],
    datasets: Mapping[str, str],
    source_folders: Sequence[Path],
) -> dict[str, Any]:
    """Collects the provenance of a sweep for its report.

    Args:
        sweep_file: Experiment file.
        notes: Notes of the experiment.
        overrides: Changes to it from the command line, by key.
        datasets: Names of datasets by id.
        source_folders: Folders of sources, with licence files below them.

    Returns:
        `notes`, `config` (the experiment file's text), `config_file`, `git_commit` ("" outside a repository; ends in
        "-dirty" where files differ from it), `versions` by package, `datasets` by id, `licences` by source.
    """
    return {
        "notes": notes,
        "config_file": str(sweep_file),
        "config": sweep_file.read_text(encoding="utf-8") if sweep_file.exists() else "",
        "overrides": overrides,
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "datasets": dict(datasets),
        "licences": {name: text for folder in source_folders for name, text in _licences(folder)},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


def _licences(source: Path) -> list[tuple[str, str]]:
    found = sorted({path for pattern in _LICENCES for path in source.glob(f"*/{pattern}")})
    return [(f"{source.name}/{path.name}", path.read_text(encoding="utf-8", errors="replace")) for path in found]
