"""Clones of the repository in which Snakemake runs as for a user."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import dry_runs

ROOT = Path(__file__).resolve().parents[1]
TINY = "tests/experiments/tiny_dpcl.yml"
# a run must not depend on the tester's environment
UNSET = (
    *(
        "DATA_DIRECTORY",
        "CACHE_DIRECTORY",
        "ARTIFACTS_DIRECTORY",
        "SNAKEMAKE_PROFILE",
        "SEPARATION_RUN",
        "SEPARATION_FOLDERS",
    ),
    *("COMET_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_URI", "PATH_TO_GOOGLE_CREDENTIALS"),
)
_PARTS = (
    *("Snakefile", "workflow", "config", "profiles", "local", "local-gpu", "slurm", "tests/experiments"),
    "envs/environment.yml",
)


def new_process(arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess:
    """Runs snakemake as from a terminal; its jobs do not outlive a test that is interrupted."""
    command = [sys.executable, "-m", "snakemake", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            stdout, stderr = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def planned_jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """The number of jobs of each rule in the output of a dry run, without target rules."""
    text = done.stdout + done.stderr
    if "Nothing to be done" in text:
        return {}
    table = text.split("Job stats:")[1].split("total")[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)$", table, flags=re.MULTILINE)}
    targets = {"all", "data", "cache", "train", "evaluate", "analyze", "publish"}
    return {name: count for name, count in counts.items() if name not in targets}


class Project:
    """A clone of the repository in which snakemake runs as for a user."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def clone(cls, folder: Path) -> "Project":
        for part in _PARTS:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(os.readlink(source))
            elif source.is_dir():
                # with the bytecode, which is valid because files keep their dates; those that another process is
                # writing may vanish
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy2(source, target)
        return cls(folder)

    def copy(self, folder: Path) -> "Project":
        """A copy of everything, with time stamps."""
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", f"{self.folder}/.", str(folder)], check=True)
        return Project(folder)

    def run(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess:
        """Runs snakemake; its messages are in `stderr`, its printed output in `stdout`."""
        environment = {**os.environ, **variables}
        for name in UNSET:
            if name not in variables:
                environment.pop(name, None)
        command = dry_runs.snakemake if dry_runs.WITHOUT_JOBS & set(arguments) else new_process
        done = command(arguments, self.folder, environment)
        if check and done.returncode:
            raise AssertionError(
                f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
            )
        return done

    def planned(self, *arguments: str, **variables: str) -> dict[str, int]:
        """The number of jobs of each rule in a dry run, without target rules."""
        return planned_jobs(self.run("-n", *arguments, **variables))

    def path(self, pattern: str) -> Path:
        """The only file that matches a pattern."""
        (found,) = self.folder.glob(pattern)
        return found
