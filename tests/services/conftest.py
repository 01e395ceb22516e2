"""Real services, started for a test session and stopped after it.

Where one is unavailable, its tests are skipped, and the summary names what is missing. `make test-services` runs two
processes side by side, one with the tests on Slurm and one with those in containers. They share a folder: the first
that needs something makes it for both. The summary prints how long each service took to start.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

import images
import slurm as slurm_service
from made_once import made_once, timed
from projects import ROOT, UNSET
from tiny_experiment import FOLDERS

_FOLDER, _OWNER = pytest.StashKey[Path](), pytest.StashKey[bool]()


# the folder of all services ------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {}).get("services")
    config.stash[_FOLDER] = Path(given or tempfile.mkdtemp(prefix="services-"))
    config.stash[_OWNER] = given is None
    # unlike pytest's own folders: munge, mariadb and users inside images read it
    config.stash[_FOLDER].chmod(0o755)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["services"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops what a killed process of this session left running, and removes the folder."""
    folder = config.stash[_FOLDER]
    if config.stash[_OWNER]:
        slurm_service.Slurm(folder / "slurm").down()
        images.stop_dockerd(folder / "docker")
        shutil.rmtree(folder)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    times = config.stash[_FOLDER] / "times"
    if times.exists():
        terminalreporter.section("start of services, seconds")
        terminalreporter.write(times.read_text())


@pytest.fixture(scope="session")
def folder(pytestconfig: pytest.Config) -> Path:
    return pytestconfig.stash[_FOLDER]


# services ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def slurm(folder) -> Iterator[slurm_service.Slurm]:
    """Two nodes with two GPUs each, and partitions cpu and gpu on both."""
    with timed(folder, "packages of Slurm"):
        why = slurm_service.missing()
    if why:
        pytest.skip(why)
    cluster = slurm_service.Slurm(folder / "slurm")
    try:
        with timed(folder, "Slurm"):
            cluster.up()
        yield cluster
    finally:
        cluster.down()
    assert not cluster.processes(), "processes of the cluster are still running"


@pytest.fixture(scope="session")
def submitter(folder) -> Path:
    """The Python of an environment that can only plan and submit: envs/submit.lock."""

    def make(path: Path) -> str:
        subprocess.run([sys.executable, "-m", "venv", str(path)], check=True)
        install = ["install", "--quiet", "--no-compile", "--no-deps", "--disable-pip-version-check"]
        command = [str(path / "bin/python"), "-m", "pip", *install, "-r", str(ROOT / "envs/submit.lock")]
        subprocess.run(command, check=True, timeout=300)
        return ""

    return made_once(folder, "environment-for-submitting", make) / "bin/python"


@pytest.fixture(scope="session")
def session_environment() -> dict[str, str]:
    """The environment without the tester's own settings."""
    return {name: value for name, value in os.environ.items() if name not in UNSET}


# images --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def packages() -> str:
    """The site-packages of this environment, if they fit the images' Python."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("images: the packages of this Python do not fit Debian 12's, which is 3.11")
    return sysconfig.get_path("purelib")


@pytest.fixture(scope="session")
def aside() -> Iterator[Executor]:
    """Threads for what takes long and is needed later."""
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.fixture(scope="session")
def base(folder) -> Path:
    """The root folder of a Debian 12."""
    return made_once(folder, "base-image", images.make_base)


@pytest.fixture(scope="session")
def apptainer_image(folder, session_environment, aside, request) -> Path:
    """The image of containers/separation.def, as a folder."""
    apptainer = aside.submit(made_once, folder, "apptainer", lambda _: images.install_apptainer())
    base = request.getfixturevalue("base")
    apptainer.result()

    def make(path: Path) -> str:
        variables = {"BOOTSTRAP": "localimage", "BASE_IMAGE": str(base), "BUILD_OPTIONS": "--sandbox"}
        images.build("apptainer", session_environment, DOCKER_IMAGE_NAME=str(path), **variables)
        return ""

    return made_once(folder, "apptainer-image.sif", make)


@pytest.fixture(scope="session")
def in_apptainer(apptainer_image, packages) -> list[str]:
    """The arguments with which jobs run in the image; the last one takes more settings."""
    bind = f"--apptainer-args=--bind {packages}:{images.INSIDE}"
    return ["--sdm", "apptainer", bind, "--config", f"container={apptainer_image}"]


@pytest.fixture(scope="module")
def elsewhere(request, folder, session_environment) -> dict[str, str]:
    """The environment with DATA, CACHE and ARTIFACTS outside the repository."""
    shared = folder / f"shared-{request.module.__name__}"
    return {**session_environment, **{name: str(shared / name.split("_")[0].lower()) for name in FOLDERS}}
