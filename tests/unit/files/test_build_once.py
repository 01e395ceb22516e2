"""Artefacts that several processes want to make are made by one of them; jobs on foreign folders are stopped."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from separation.errors import UserError
from separation.files.build_once import made_once, shard_once
from separation.machine.snakemake_job import job
from separation.planning.shared_folders import check_folders, mark_folders

LIBRARY = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
#: makes `made` from `source` and says so; in between it waits for a line of input
MAKER = """
    import sys
    from pathlib import Path
    from separation.files.build_once import made_once
    with made_once([Path("made")], [Path("source")]) as needed:
        print("makes" if needed else "finds", flush=True)
        if needed:
            sys.stdin.readline()
            Path("made").write_text("x")
"""


@pytest.fixture
def start(tmp_path):
    processes = []

    def begin():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", textwrap.dedent(MAKER)]
        environment = os.environ | {"PYTHONPATH": str(LIBRARY)}
        processes.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return processes[-1]

    (tmp_path / "source").write_text("a")
    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_the_second_waits_and_finds_it_made(start, tmp_path):
    first = start()
    assert first.stdout.readline() == "makes\n"
    second = start()
    waiting = second.stderr.readline()
    assert waiting.startswith(f"waiting for {Path()}, which another workflow makes (pid {first.pid} of ")
    first.stdin.write("\n")
    first.stdin.flush()
    assert second.stdout.readline() == "finds\n"
    assert first.wait() == second.wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.made.json", "made", "source"]


def test_who_waits_takes_over_from_one_that_was_killed(start):
    first = start()
    assert first.stdout.readline() == "makes\n"
    second = start()
    assert "waiting" in second.stderr.readline()
    first.kill()
    assert second.stdout.readline() == "makes\n"


def age(path, seconds):
    os.utime(path, (path.stat().st_mtime + seconds,) * 2)


def test_a_newer_input_counts_by_its_contents(tmp_path):
    source, made = tmp_path / "source", tmp_path / "made"
    source.write_text("a")

    def make():
        with made_once([made], [source]) as needed:
            if needed:
                made.write_text(source.read_text())
        return needed

    assert make() and not make()
    age(source, 100)  # as after a job that left it alone
    assert not make()
    source.write_text("b")
    age(source, 100)
    assert make() and made.read_text() == "b"
    made.unlink()
    assert make()


def test_what_failed_is_not_taken_for_made(tmp_path):
    with pytest.raises(ZeroDivisionError), made_once([tmp_path / "made"], []) as needed:
        assert needed and 1 / 0
    with made_once([tmp_path / "made"], []) as needed:
        assert needed


def test_shards_are_shared_and_nobody_needs_them_once_the_whole_is_there(tmp_path):
    whole, record, source = tmp_path / "manifest.json", tmp_path / "shards" / "0000.json", tmp_path / "source"
    source.write_text("a")
    for expected in (True, False):
        with shard_once(whole, record, [source]) as needed:
            assert needed is expected
            record.write_text("{}")
    record.unlink()
    with made_once([whole], [source]) as needed:
        assert needed
        whole.write_text("{}")
    with shard_once(whole, record, [source]) as needed:
        assert not needed


def test_a_job_whose_outputs_another_workflow_made_ends_well_and_runs_nothing(tmp_path):
    (tmp_path / "made").write_text("x")
    asked = SimpleNamespace(threads=1, log=[tmp_path / "log"], output=[tmp_path / "made"], input=[])
    ran = []
    with pytest.raises(SystemExit) as ended, job(asked, once=True):
        ran.append(True)
    assert ended.value.code == 0 and ran == []
    assert "made by another workflow: nothing to do" in (tmp_path / "log").read_text()


def folders(root):
    return SimpleNamespace(data=root / "data", cache=root / "cache", artifacts=root / "artifacts")


def test_a_job_on_other_folders_is_stopped_in_one_line(tmp_path):
    here, elsewhere, environment = folders(tmp_path / "here"), folders(tmp_path / "elsewhere"), {}
    check_folders(elsewhere, {})  # a job that was told nothing
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
