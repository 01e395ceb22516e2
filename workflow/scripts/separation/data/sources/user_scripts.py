"""A step that a user wrote: a script with its YAML, run in a folder of its own, its audio files listed afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from separation.data.manifests import finish_manifest, start_manifest
from separation.errors import UserError
from separation.files.atomic import sha256_of, write_text
from separation.files.listing import listing
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import to_yaml

logger = logging.getLogger(__name__)

OUTPUT = "OUTPUT_DIRECTORY"
_LINES_SHOWN = 12


def run_user_script(spec: dict[str, Any], manifest: Path, script: Path, yaml: Path | None) -> None:
    """Runs a script and writes the manifest of what it made, in the folder `files` beside the manifest.

    The script finds that folder in the variable OUTPUT_DIRECTORY, and in its YAML, where `${OUTPUT_DIRECTORY}` and
    other variables are replaced. It runs in the working directory of the workflow, Python scripts by its own Python.

    Args:
        spec: `source`, as it goes into ids: `arguments`, in which {yaml} stands for the path of the settings.
        manifest: written last.
        script: the user's script.
        yaml: its settings.

    Raises:
        UserError: the script fails, changed since the workflow was planned, or makes no file.
    """
    source = spec["source"]
    for key, path in (("file", script), ("yaml", yaml)):
        if path is not None and sha256_of(path) != source[key]:
            raise UserError("it changed since this run was planned; run the workflow again", file=path)
    folder = start_manifest(manifest)
    output, making = folder / "files", folder / ".making"
    for old in (output, making):
        shutil.rmtree(old, ignore_errors=True)
    making.mkdir(parents=True)
    environment = {**os.environ, OUTPUT: str(making.resolve())}
    settings = folder / "settings.yml"
    if yaml is not None:
        write_text(settings, _replaced(yaml, environment))
    program = [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    command = [*program, *(word.replace("{yaml}", str(settings.resolve())) for word in source["arguments"])]
    logger.info("running %s", " ".join(command))
    log = folder / "output.txt"
    with open(log, "wb") as written:
        try:
            code = subprocess.run(command, env=environment, stdout=written, stderr=subprocess.STDOUT).returncode
        except OSError as error:
            raise UserError(f"cannot be run: {error.strerror}", file=script) from None
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    logger.info("its output:\n%s", "\n".join(lines[-200:]))
    if code:
        shutil.rmtree(making)
        raise UserError(
            f"ended with exit code {code}: {' | '.join(lines[-_LINES_SHOWN:][-1:]) or 'it said nothing'} ({log})",
            file=script,
        )
    files = [
        {"path": f"files/{path}", "size": size, "sha256": sha256_of(making / path)} for path, size in listing(making)
    ]
    if not files:
        raise UserError(f"wrote nothing into the folder that {OUTPUT} names", file=script)
    os.replace(making, output)
    attribution = source.get("licence") or "Made by a script of the user; licence not stated by the recipe."
    finish_manifest(manifest, spec, {"files": files, "attribution": f"{attribution}\n"})


def _replaced(yaml: Path, environment: dict[str, str]) -> str:
    return to_yaml(read_yaml(yaml, environment).value)
