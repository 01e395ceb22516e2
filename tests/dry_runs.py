"""Snakemake's command line in a process forked from one that has imported Snakemake.

Importing it takes most of the time of a dry run. A forked process reads the workflow and the library of its folder as a
new one does; tests/workflow/test_dry_runs.py compares both.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: with one of these, Snakemake starts no job
WITHOUT_JOBS = {"-n", "--dry-run", "--dag", "--rulegraph", "--lint", "--list", "--summary", "--unlock", "--help"}
#: what Snakemake and the workflow import of other packages, and nothing of the workflow
PRELOADED = ["snakemake.cli", "snakemake.report.html_reporter", "smart_open", "jsonschema", "yte", "filelock"]

_server = multiprocessing.get_context("forkserver")
set_forkserver_preload(PRELOADED)


def _main(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], streams: Sequence[str]) -> None:
    """`python -m snakemake` in this process, as it would be in a new one."""
    for target, file in enumerate(streams):
        opened = os.open(file, os.O_RDWR)
        os.dup2(opened, target)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # the parent has this repository's library and tests on its path
    own = (ROOT / "tests", ROOT / "workflow")
    paths = [Path(path) for path in sys.path]
    others = [path for path in paths if path != ROOT and not any(path.is_relative_to(folder) for folder in own)]
    sys.path[:] = [str(folder), *map(str, others)]
    from snakemake import cli

    sys.argv[:] = [str(Path(cli.__file__).with_name("__main__.py")), *arguments]
    cli.main()


def snakemake(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    """Runs snakemake in a folder; only for command lines that start no job."""
    with tempfile.TemporaryDirectory() as written:
        stdout, stderr = Path(written, "stdout"), Path(written, "stderr")
        stdout.touch()
        stderr.touch()
        streams = [os.devnull, str(stdout), str(stderr)]
        process = _server.Process(target=_main, args=(arguments, folder, dict(environment), streams))
        process.start()
        try:
            process.join()
        finally:
            process.kill()
        return subprocess.CompletedProcess(
            ["snakemake", *arguments], process.exitcode, stdout.read_text(), stderr.read_text()
        )
