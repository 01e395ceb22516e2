"""Real Snakemake runs in copies of the repository."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from projects import TINY, UNSET, Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The tiny experiment, run once to the end. Tests that change it work on a copy.

    Where several processes test, the first one runs it, and each has a copy.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished.stamp").exists():
            shutil.rmtree(shared / "finished", ignore_errors=True)
            Project.clone(shared / "finished").run("--config", f"sweep={TINY}")
            (shared / "finished.stamp").touch()
    return Project(shared / "finished").copy(own / "own-finished")


@pytest.fixture
def project(finished, tmp_path) -> Project:
    """A copy of the finished run that a test may change."""
    return finished.copy(tmp_path / "project")


@pytest.fixture
def fresh(tmp_path) -> Project:
    """A clone in which nothing has run yet."""
    return Project.clone(tmp_path / "fresh")


@pytest.fixture
def run_command(monkeypatch, capsys) -> Callable[..., subprocess.CompletedProcess]:
    """Runs the main function of a command in a folder and in this process, where its imports are paid already."""

    def run(main: Callable[[list[str]], int], folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
        for name in UNSET:
            monkeypatch.delenv(name, raising=False)
        capsys.readouterr()
        with contextlib.chdir(folder):
            code = main([str(argument) for argument in arguments])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


@pytest.fixture
def apptainer_for_planning(tmp_path) -> Path:
    """A folder for PATH with a fake apptainer: planning only reads its version, and no job runs."""
    program = tmp_path / "programs" / "apptainer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    program.chmod(0o755)
    return program.parent
