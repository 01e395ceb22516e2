"""Two clones with the same DATA, CACHE and ARTIFACTS, one of them run twice at the same time, on fake GPUs."""

import csv
import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import psutil
import pytest

from conftest import TINY, UNSET, Project

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


def start(clone, shared, *arguments):
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | shared
    command = [sys.executable, "-m", "snakemake", "--profile", "local-gpu", "--cores", "3", *arguments]
    command += ["--config", f"sweep={TINY}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=clone.folder, env=environment, **pipes)


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without printing {text}")


def kill_all(process):
    """Kills a process and its children at once, as when a machine goes down: nothing can clean up."""
    for child in [*psutil.Process(process.pid).children(recursive=True), process]:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
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
            name = benchmark.relative_to(clone.folder / "results/benchmarks")
            log = (clone.folder / "logs" / name).with_suffix(".log").read_text()
            counts[name] = counts.get(name, 0) + (not any(found in log for found in FOUND))
    return counts


@pytest.mark.slow
def test_two_clones_build_everything_once_even_if_one_is_killed(fresh, tmp_path, shared):
    clones = [fresh, Project.clone(tmp_path / "other")]
    first, second = (start(clone, shared, "evaluate") for clone in clones)
    read_until(first, "Fetching")
    refused = fresh.run("evaluate", "--config", f"sweep={TINY}", check=False, **shared)
    assert refused.returncode == 1 and "Directory cannot be locked" in refused.stderr
    assert "Traceback" not in refused.stderr
    read_until(second, "Training")
    kill_all(second)
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
    assert_no_device_had_two_jobs_at_once(clones)

    third = Project.clone(tmp_path / "third")
    assert third.planned("evaluate", "--config", f"sweep={TINY}", **shared) == {}


def assert_no_device_had_two_jobs_at_once(clones):
    rows = []
    for clone in clones:
        for path in clone.folder.glob("results/benchmarks/*_point/**/*.devices.tsv"):
            with open(path) as table:
                rows += csv.DictReader(table, delimiter="\t")
    assert len(rows) >= 4 and {row["device"] for row in rows} == set(DEVICES)
    for device in DEVICES:
        # a killed job has no end
        times = sorted((row["begin"], row["end"] or row["begin"]) for row in rows if row["device"] == device)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
