"""Real services, started for a test session and stopped after it.

Where one is unavailable, its tests are skipped, and the summary names what is missing.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import slurm as slurm_service
from projects import ROOT, UNSET


@pytest.fixture(scope="session")
def slurm() -> Iterator[slurm_service.Slurm]:
    """Two nodes with two GPUs each, and partitions cpu and gpu on both."""
    why = slurm_service.missing()
    if why:
        pytest.skip(why)
    # munge and mariadb run as their own users, who cannot read pytest's folders
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    cluster = slurm_service.Slurm(folder / "cluster")
    try:
        cluster.up()
        yield cluster
        cluster.down()
        assert not cluster.processes(), "processes of the cluster are still running"
    finally:
        if cluster.folder.exists():
            cluster.down()
        folder.rmdir()


@pytest.fixture(scope="session")
def submitter(tmp_path_factory) -> Path:
    """The Python of an environment that can only plan and submit: envs/submit.lock."""
    folder = tmp_path_factory.mktemp("submitter")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = ["install", "--quiet", "--no-compile", "--no-deps", "--disable-pip-version-check"]
    command = [str(folder / "bin/python"), "-m", "pip", *install, "-r", str(ROOT / "envs/submit.lock")]
    subprocess.run(command, check=True, timeout=300)
    return folder / "bin/python"


@pytest.fixture(scope="session")
def session_environment() -> dict[str, str]:
    """The environment without the tester's own settings."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}
