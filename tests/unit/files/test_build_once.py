"""Each artifact is built by one of several processes; jobs on other folders are stopped."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from separation.errors import UserError
from separation.files.build_once import build_once, build_shard_once
from separation.machine.snakemake_job import job
from separation.planning.shared_folders import check_folders, mark_folders

LIBRARY = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
#: builds `made` from `source` and prints each step; in between it waits for a line of input
BUILDER = """
    import sys
    from pathlib import Path
    from separation.files.build_once import build_once
    with build_once([Path("made")], [Path("source")]) as needed:
        print("builds" if needed else "finds", flush=True)
        if needed:
            sys.stdin.readline()
            Path("made").write_text("x")
"""


@pytest.fixture
def start(tmp_path):
    processes = []

    def begin():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", textwrap.dedent(BUILDER)]
        environment = os.environ | {"PYTHONPATH": str(LIBRARY)}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return processes[-1]

    (tmp_path / "source").write_text("a")
    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_a_second_process_waits_and_finds_the_artifact(start, tmp_path):
    first = start()
    assert first.stdout.readline() == "builds\n"
    second = start()
    waiting = second.stderr.readline()
    assert waiting.startswith(f"waiting for {Path()}: another workflow is building it (pid {first.pid} of ")
    first.stdin.write("\n")
    first.stdin.flush()
    assert second.stdout.readline() == "finds\n"
    assert first.wait() == second.wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.made.json", "made", "source"]


def test_a_waiting_process_takes_over_from_a_killed_one(start):
    first = start()
    assert first.stdout.readline() == "builds\n"
    second = start()
    assert "waiting" in second.stderr.readline()
    first.kill()
    assert second.stdout.readline() == "builds\n"


def age(path, seconds):
    os.utime(path, (path.stat().st_mtime + seconds,) * 2)


def test_newer_inputs_count_only_with_new_contents(tmp_path):
    source, made = tmp_path / "source", tmp_path / "made"
    source.write_text("a")

    def make():
        with build_once([made], [source]) as needed:
            if needed:
                made.write_text(source.read_text())
        return needed

    assert make() and not make()
    age(source, 100)  # as after a job that does not change it
    assert not make()
    source.write_text("b")
    age(source, 100)
    assert make() and made.read_text() == "b"
    made.unlink()
    assert make()


def test_failed_builds_are_repeated(tmp_path):
    with pytest.raises(ZeroDivisionError), build_once([tmp_path / "made"], []) as needed:
        assert needed and 1 / 0
    with build_once([tmp_path / "made"], []) as needed:
        assert needed


def test_shards_are_shared_and_not_needed_once_the_artifact_is_complete(tmp_path):
    artifact, record, source = tmp_path / "manifest.json", tmp_path / "shards" / "0000.json", tmp_path / "source"
    source.write_text("a")
    for expected in (True, False):
        with build_shard_once(artifact, record, [source]) as needed:
            assert needed is expected
            record.write_text("{}")
    record.unlink()
    with build_once([artifact], [source]) as needed:
        assert needed
        artifact.write_text("{}")
    with build_shard_once(artifact, record, [source]) as needed:
        assert not needed


def test_jobs_whose_outputs_another_workflow_built_succeed_without_running(tmp_path):
    (tmp_path / "made").write_text("x")
    snakemake = SimpleNamespace(threads=1, log=[tmp_path / "log"], output=[tmp_path / "made"], input=[])
    ran = []
    with pytest.raises(SystemExit) as ended, job(snakemake, once=True):
        ran.append(True)
    assert ended.value.code == 0 and ran == []
    assert "was already built by another workflow; skipping" in (tmp_path / "log").read_text()


def folders(root):
    return SimpleNamespace(data=root / "data", cache=root / "cache", artifacts=root / "artifacts")


def test_jobs_on_other_folders_stop_with_one_line(tmp_path):
    here, elsewhere, environment = folders(tmp_path / "here"), folders(tmp_path / "elsewhere"), {}
    check_folders(elsewhere, {})  # a job without marks
    mark_folders(here, environment)
    again = {}
    mark_folders(here, again)
    assert again == environment
    check_folders(here, environment)
    with pytest.raises(UserError, match=r"not the DATA folder that the workflow on .* started with.*DATA_DIRECTORY"):
        check_folders(elsewhere, environment, latency=0)
    mark_folders(elsewhere, {})
    elsewhere.data = here.data
    with pytest.raises(UserError, match="not the CACHE folder"):
        check_folders(elsewhere, environment, latency=0)
