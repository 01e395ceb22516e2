"""Clones with the same DATA, CACHE and ARTIFACTS, on fake GPUs."""

import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise

import pytest

from projects import TINY, UNSET, Project

# unknown to any driver: torch finds no GPU and uses the CPU, but jobs lease these devices as usual
DEVICES = ["GPU-fake-1", "GPU-fake-2"]
#: log messages of a job whose outputs exist already
FOUND = ("was already built by another workflow; skipping", "is complete; skipping")
RULES = ("fetch_source", "organize_source", "resample_source", "mix_dataset", "populate_cache", "evaluate_baselines")


@pytest.fixture
def shared(tmp_path):
    """The variables with which clones share their folders and devices."""
    directories = {
        f"{name}_DIRECTORY": str(tmp_path / "shared" / name.lower()) for name in ("DATA", "CACHE", "ARTIFACTS")
    }
    return directories | {"CUDA_VISIBLE_DEVICES": ",".join(DEVICES), "GPU_LOCK_DIRECTORY": str(tmp_path / "locks")}


@pytest.fixture
def shared_results(finished, shared):
    """`shared` with the data, caches and artifacts of the finished run."""
    for name in ("data", "cache", "artifacts"):
        shutil.copytree(finished.folder / "results" / name, shared[f"{name.upper()}_DIRECTORY"], symlinks=True)
    return shared


@pytest.fixture
def start():
    """Starts snakemake in a clone; what still runs at the end of the test is killed."""
    started = []

    def begin(clone, shared, *arguments, changes=""):
        environment = {name: value for name, value in os.environ.items() if name not in UNSET} | shared
        command = [sys.executable, "-m", "snakemake", "--profile", "local-gpu", "--cores", "3", *arguments]
        command += ["--config", f"sweep={TINY}", f"set={changes}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, cwd=clone.folder, env=environment, start_new_session=True, **pipes))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            kill(process)


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without printing {text}")


def kill(process):
    """Kills a process and its jobs at once, as when a machine goes down: nothing can clean up."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def finished_files(folder):
    """The inode and the checksum of every finished file; it must never be written again."""
    paths = [*folder.glob("data/**/manifest.json"), *folder.glob("cache/*/*.json"), *folder.glob("artifacts/**/*.pth")]
    paths += folder.glob("artifacts/**/*.parquet")
    return {path: (path.stat().st_ino, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths}


def builders(clones, rule):
    """The number of jobs that built each artefact; killed jobs count as none."""
    counts = {}
    for clone in clones:
        # Snakemake writes a benchmark when a job ends
        for benchmark in (clone.folder / "results/benchmarks" / rule).rglob("*.tsv"):
            if benchmark.name.endswith(".devices.tsv"):
                continue
            name = benchmark.relative_to(clone.folder / "results/benchmarks")
            log = (clone.folder / "logs" / name).with_suffix(".log").read_text()
            counts[name] = counts.get(name, 0) + (not any(found in log for found in FOUND))
    return counts


@pytest.mark.timeout(900)
def test_a_waiting_clone_takes_over_the_training_of_a_killed_one(fresh, tmp_path, shared_results, start):
    clones = [fresh, Project.clone(tmp_path / "other")]
    # the training of the first clone writes to a pipe in its third epoch, and waits to be killed
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = fresh.folder / "workflow/scripts/separation/training/loop.py"
    text, line = loop.read_text(), "        self._train_epoch(epoch, plan)\n"
    assert line in text
    wait = f"        if epoch == 2:\n            Path({str(pipe)!r}).write_text('here')\n"
    wait += "            __import__('signal').pause()\n"
    loop.write_text(text.replace(line, wait + line))
    changes = "train_config.learning_rate=0.1,train_config.num_epochs=4"
    first = start(clones[0], shared_results, "train", changes=changes)
    assert pipe.read_text() == "here"
    refused = fresh.run("train", "--config", f"sweep={TINY}", f"set={changes}", check=False, **shared_results)
    assert refused.returncode == 1 and "Directory cannot be locked" in refused.stderr
    assert "Traceback" not in refused.stderr
    second = start(clones[1], shared_results, "train", changes=changes)
    read_until(second, "another workflow is building it")
    kill(first)
    output, _ = second.communicate()
    assert second.returncode == 0, output
    (log,) = clones[1].folder.glob("logs/train_point/*.log")
    assert "resuming after epoch 2 of 4" in log.read_text()
    before = finished_files(tmp_path / "shared")

    loop.write_text(text)
    clones[0].run("--unlock", "train", "--config", f"sweep={TINY}", f"set={changes}", **shared_results)
    again = start(clones[0], shared_results, "train", changes=changes)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert finished_files(tmp_path / "shared") == before
    assert list(builders(clones, "train_point").values()) == [1]
    point = tmp_path / "shared/artifacts" / log.stem
    assert (point / "state/events.jsonl").read_text().count('"finished"') == 1
    assert_no_device_had_two_jobs_at_once(clones, rows=2)


@pytest.mark.timeout(900)
def test_every_rule_finds_what_another_clone_has_built(fresh, tmp_path, shared_results, start):
    before = finished_files(tmp_path / "shared")
    # as if it had planned all jobs before the other clone finished them
    command = start(fresh, shared_results, "evaluate", "--forceall", changes="train_config.learning_rate=0.01")
    output, _ = command.communicate()
    assert command.returncode == 0, output
    for rule in (*RULES, "train_point", "evaluate_point"):
        counts = builders([fresh], rule)
        assert counts and set(counts.values()) == {0}, (rule, counts)
    assert finished_files(tmp_path / "shared") == before


@pytest.mark.timeout(900)
@pytest.mark.slow
def test_two_clones_build_everything_once_even_if_one_is_killed(fresh, tmp_path, shared, start):
    clones = [fresh, Project.clone(tmp_path / "other")]
    first, second = (start(clone, shared, "evaluate") for clone in clones)
    read_until(first, "Fetching")
    refused = fresh.run("evaluate", "--config", f"sweep={TINY}", check=False, **shared)
    assert refused.returncode == 1 and "Directory cannot be locked" in refused.stderr
    assert "Traceback" not in refused.stderr
    read_until(second, "Training")
    kill(second)
    before = finished_files(tmp_path / "shared")
    assert len(before) >= 8, "data and caches are finished"
    output, _ = first.communicate()
    assert first.returncode == 0, output
    clones[1].run("--unlock", "evaluate", "--config", f"sweep={TINY}", **shared)
    again = start(clones[1], shared, "evaluate")
    output, _ = again.communicate()
    assert again.returncode == 0, output

    after = finished_files(tmp_path / "shared")
    assert {path: after[path] for path in before} == before
    for rule in RULES:
        counts = builders(clones, rule)
        # none where the job had finished its artefact and was killed before it ended
        assert counts and set(counts.values()) <= {0, 1}, (rule, counts)
    points = sorted((tmp_path / "shared/artifacts").glob("dpcl-*"))
    assert len(points) == 2
    for point in points:
        assert (point / "state/events.jsonl").read_text().count('"finished"') == 1
        assert len(list(point.glob("evaluations/*/scores.parquet"))) == 1
    assert not [path for path in (tmp_path / "shared").rglob("*.lock") if path.stat().st_size]
    assert {row["device"] for row in assert_no_device_had_two_jobs_at_once(clones, rows=4)} == set(DEVICES)

    third = Project.clone(tmp_path / "third")
    assert third.planned("evaluate", "--config", f"sweep={TINY}", **shared) == {}


def assert_no_device_had_two_jobs_at_once(clones, rows):
    """Asserts it of at least as many records of devices, and returns them."""
    found = []
    for clone in clones:
        for path in clone.folder.glob("results/benchmarks/*_point/**/*.devices.tsv"):
            with open(path) as table:
                found += csv.DictReader(table, delimiter="\t")
    assert len(found) >= rows
    for device in DEVICES:
        # a killed job has no end
        times = sorted((row["begin"], row["end"] or row["begin"]) for row in found if row["device"] == device)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    return found
