"""How the tests themselves are run: nothing is left out, and nothing waits for ever."""

import re
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import subprocess, sys

def test_waiting():
    print("child", flush=True)
    subprocess.run([sys.executable, "-c", "import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)"])

def test_next():
    pass
"""


def test_each_test_is_in_exactly_one_of_the_commands():
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"\$\(pytest\) -m (.*) \$\(args\)", makefile) == ["'not slow'", "slow"]


def test_a_test_that_waits_for_ever_fails_with_its_stack_and_the_next_runs(tmp_path):
    file = tmp_path / "test_waiting.py"
    file.write_text(WAITING)
    options = [
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
        "-s",
        "--tb=short",
    ]
    command = [sys.executable, "-m", "pytest", *options, "-o", "timeout=1", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "1 failed, 1 passed" in done.stdout
    assert "test_waiting.py:6: in test_waiting" in done.stdout and "Timeout (>1.0s)" in done.stdout
    child = int(re.search(r"pid (\d+)", done.stdout)[1])
    assert not psutil.pid_exists(child)
