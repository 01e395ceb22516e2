"""Real workflows on made-up GPUs: their jobs take turns, also with those of another clone."""

import csv
import os
import subprocess
import sys
from itertools import pairwise

from conftest import TINY, UNSET, Project

# no driver knows these: torch finds no GPU and trains on the CPU, while all that gives devices to jobs works as ever
DEVICES = "GPU-made-up-1,GPU-made-up-2"


def rows_of(project):
    for path in project.folder.glob("results/benchmarks/*_point/**/*.devices.tsv"):
        with open(path) as rows:
            yield from csv.DictReader(rows, delimiter="\t")


def test_two_clones_never_use_a_device_at_a_time(finished, fresh, tmp_path):
    places = {f"{name}_DIRECTORY": str(finished.folder / "results" / name.lower()) for name in ("DATA", "CACHE")}
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | places
    environment |= {"CUDA_VISIBLE_DEVICES": DEVICES, "GPU_LOCK_DIRECTORY": str(tmp_path / "locks")}
    clones = [fresh, Project.clone(tmp_path / "other")]
    runs = []
    for clone, rates in zip(clones, ("[0.1,0.2,0.3]", "[0.4,0.5]"), strict=True):
        command = [sys.executable, "-m", "snakemake", "train", "--profile", "local-gpu", "--cores", "3"]
        command += ["--config", f"sweep={TINY}", f"set=train_config.learning_rate={rates}"]
        with open(tmp_path / f"{clone.folder.name}.log", "wb") as log:
            runs.append(subprocess.Popen(command, cwd=clone.folder, env=environment, stdout=log, stderr=log))
    codes = [run.wait() for run in runs]
    assert codes == [0, 0], "".join(path.read_text() for path in tmp_path.glob("*.log"))
    rows = [row for clone in clones for row in rows_of(clone)]
    assert len(rows) == 5 and {row["device"] for row in rows} == set(DEVICES.split(","))
    for device in DEVICES.split(","):
        times = sorted((row["begin"], row["end"]) for row in rows if row["device"] == device)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    # both at work at once, so that there was something to share out
    assert min(row["end"] for row in rows) > sorted(row["begin"] for row in rows)[1]
    assert list((tmp_path / "locks").iterdir()) == []


def test_slots_let_jobs_share_a_device(fresh):
    shared = fresh.run("-n", "train", "--config", "gpus=auto", "gpu_slots=2", CUDA_VISIBLE_DEVICES=DEVICES)
    assert "gpu=1" in shared.stdout + shared.stderr
    wrong = fresh.run("-n", "--config", "gpus=auto", "gpu_slots=0", check=False, CUDA_VISIBLE_DEVICES=DEVICES)
    assert wrong.returncode == 1 and "gpu_slots: expected" in wrong.stderr and "Traceback" not in wrong.stderr
