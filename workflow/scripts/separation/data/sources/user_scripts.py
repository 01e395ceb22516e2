"""The rule run_script: a user's script with its settings, and a manifest of the files it writes."""

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
from separation.files.layout import script_output
from separation.files.listing import listing
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import to_yaml

logger = logging.getLogger(__name__)

OUTPUT = "OUTPUT_DIRECTORY"
_LINES_LOGGED = 200


def run_user_script(spec: dict[str, Any], manifest: Path, script: Path, yaml: Path | None) -> None:
    """Runs a script and writes the manifest of its files, which are in the folder `files` beside the manifest.

    The script reads its output folder from the variable OUTPUT_DIRECTORY, or from its YAML, where
    `${OUTPUT_DIRECTORY}` and other variables are replaced. It runs in the workflow's working directory; Python scripts
    run in the workflow's environment.

    Args:
        spec: `source`, as it enters ids: in its `arguments`, {yaml} is replaced by the path of the settings.
        manifest: Written last.
        script: The user's script.
        yaml: Settings of the script.

    Raises:
        UserError: The script fails, has changed since the workflow was planned, or writes no file.
    """
    source = spec["source"]
    for key, path in (("file", script), ("yaml", yaml)):
        if path is not None and sha256_of(path) != source[key]:
            raise UserError("the script has changed since this run was planned; start the workflow again", file=path)
    folder = start_manifest(manifest)
    output, unfinished = script_output(manifest), folder / ".making"
    for old in (output, unfinished):
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir(parents=True)
    environment = {**os.environ, OUTPUT: str(unfinished.resolve())}
    settings = folder / "settings.yml"
    if yaml is not None:
        write_text(settings, _with_variables(yaml, environment))
    program = [sys.executable, str(script)] if script.suffix == ".py" else [str(script)]
    command = [*program, *(word.replace("{yaml}", str(settings.resolve())) for word in source["arguments"])]
    logger.info("running %s", " ".join(command))
    log = folder / "output.txt"
    with open(log, "wb") as output_log:
        try:
            code = subprocess.run(command, env=environment, stdout=output_log, stderr=subprocess.STDOUT).returncode
        except OSError as error:
            raise UserError(f"cannot be run: {error.strerror}", file=script) from None
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    logger.info("its output:\n%s", "\n".join(lines[-_LINES_LOGGED:]))
    if code:
        shutil.rmtree(unfinished)
        raise UserError(
            f"ended with exit code {code}: {' '.join(lines[-1:]) or 'no output'} ({log})",
            file=script,
        )
    files = [
        {"path": f"{output.name}/{path}", "size": size, "sha256": sha256_of(unfinished / path)}
        for path, size in listing(unfinished)
    ]
    if not files:
        raise UserError(f"wrote nothing into the folder that {OUTPUT} names", file=script)
    os.replace(unfinished, output)
    attribution = source.get("licence") or "Made by a script of the user; licence not stated by the recipe."
    finish_manifest(manifest, spec, {"files": files, "attribution": f"{attribution}\n"})


def _with_variables(yaml: Path, environment: dict[str, str]) -> str:
    return to_yaml(read_yaml(yaml, environment).value)
