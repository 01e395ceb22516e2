"""Every command of the README works; long ones are run as a dry run. tests/unit/test_docs.py checks its links."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dry_runs
from projects import ROOT

README = (ROOT / "README.md").read_text()
INDENTED = re.findall(r"^    (\S.*)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), flags=re.MULTILINE)
COMMANDS = [line.split(" #")[0].strip() for line in INDENTED]
# CI runs the first, the reader's shell the second
ELSEWHERE = {"make test", "source .venv/bin/activate"}


def test_commands_of_the_readme_are_found():
    assert set(COMMANDS) > ELSEWHERE
    assert {command.split()[0] for command in COMMANDS} == {"make", "snakemake", "source"}


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - ELSEWHERE))
def test_command_of_the_readme_works(command, fresh, apptainer_for_planning):
    if command.startswith("snakemake"):
        is_short = "--dag" in command or " -n" in command
        command = command if is_short else command.replace("snakemake", "snakemake -n", 1)
    else:
        # other tests cover the Makefile's set-up; here its recipe runs in this environment
        # (with MAKEFLAGS of an outer make, make would print its folders)
        plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        arguments = ["make", "-n", *command.split()[1:]]
        recipe = subprocess.run(arguments, cwd=ROOT, env=plain, capture_output=True, text=True, check=True)
        lines = recipe.stdout.splitlines()
        runs = [
            line.replace("snakemake ", "snakemake -n ", 1) for line in lines if line.strip().startswith("snakemake ")
        ]
        command = runs[0] if runs else lines[-1].replace(".venv/bin/python", sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{apptainer_for_planning}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    program, *words = shlex.split(command)
    if program == "snakemake" and "|" not in words:
        done = dry_runs.snakemake(words, fresh.folder, environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=fresh.folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_experiment_of_the_readme_plans(fresh):
    block = re.search(r"```yaml\n(.*?)```", README, flags=re.DOTALL).group(1)
    text = (fresh.folder / "config/experiments/music_dpcl.yml").read_text()
    before, after = text.split("sweep:", 1)[0], text.split("datasets:", 1)[1]
    (fresh.folder / "mine.yml").write_text(
        before.replace("name: music_dpcl", "name: mine") + block + "\ndatasets:" + after
    )
    planned = fresh.planned("--config", "sweep=mine.yml")
    assert planned["train_point"] == 12 and planned["populate_cache"] == 6
