"""How the tests themselves are run: nothing is left out, and nothing waits for ever."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SHARING = """
import os
import pytest

@pytest.fixture(scope="module")
def shared():
    pass

@pytest.mark.parametrize("number", range(6))
def test_sharing(shared, number):
    open(f"ran-{os.getpid()}", "a").close()
"""
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


def test_tests_that_share_a_fixture_run_in_one_process(tmp_path):
    for name in ("conftest.py", "durations.json"):
        (tmp_path / "tests").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    (tmp_path / "tests/test_sharing.py").write_text(SHARING)
    options = re.search(r"^pytest := .* -m pytest (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    options = options.replace("$${TEST_PROCESSES:-2}", "2").split()
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), *options]
    done = subprocess.run([*command, "tests"], cwd=tmp_path, capture_output=True, text=True)
    assert "6 passed" in done.stdout, done.stdout
    assert len(list(tmp_path.glob("ran-*"))) == 1


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


def test_no_test_imports_from_a_conftest():
    """Several files have this name, and the one that is found depends on the tests that run."""
    named = re.compile(r"^(from|import) conftest\b", flags=re.MULTILINE)
    assert [path for path in (ROOT / "tests").rglob("*.py") if named.search(path.read_text())] == []
