"""Time of planning for growing sweeps: `python benchmarks/plan_scale.py`.

Measures `make plan`'s work and `snakemake -n --quiet all` on a sweep of 10,000 new points, and `snakemake -n` on 1,000
finished points, in an empty folder; prints seconds and peak memory. For comparison, measures Snakemake itself with as
many jobs: a Snakefile of two rules with only files and scripts. Also prints the size of `config` in each job at 100,
1,000 and 10,000 points.
"""

import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from separation.files.layout import PointFolder, SweepFiles, baseline_scores, cache_manifest, split_manifest
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml
from separation.planning.expansion import load_workflow

NEW, FINISHED = 10_000, 1_000

BARE = f"""
rule all:
    input: [f"points/{{number}}/scores" for number in range({NEW})]
rule train:
    output: "points/{{point}}/weights"
    script: "point.py"
rule evaluate:
    input: "points/{{point}}/weights"
    output: "points/{{point}}/scores"
    script: "point.py"
"""


def write_sweep(folder: Path, count: int) -> Path:
    """The tiny experiment with `count` points."""
    content = read_yaml(ROOT / "tests/experiments/tiny_dpcl.yml").value
    rates = {
        "count": count // 10,
        "seed": 0,
        "distributions": {"train_config.learning_rate": ["log_uniform", 1e-4, 0.1]},
    }
    content["sweep"] = [{"random": rates, "seeds": list(range(10)), "cache": "x"}]
    path = folder / f"sweep_{count}.yml"
    write_yaml(path, content)
    return path


def pretend_finished(sweep: Path) -> None:
    """Writes empty files for all outputs of the sweep, oldest first."""
    workflow = load_workflow({"sweep": str(sweep)}, {})
    data, cache, artifacts = workflow.settings.data, workflow.settings.cache, workflow.settings.artifacts
    files = [split_manifest(data, dataset, split) for dataset, split in workflow.mixtures]
    files += [cache_manifest(cache, name, split) for name, split in workflow.caches]
    for folder in (PointFolder(artifacts / point) for point in workflow.trainings):
        files += [folder.config, folder.history, folder.best_checkpoint, folder.latest_checkpoint]
    for point, evaluation in workflow.evaluations:
        results = PointFolder(artifacts / point).evaluation(evaluation)
        files += [results.scores, results.config]
    files += [baseline_scores(artifacts, name) for name in workflow.baselines]
    sweep = SweepFiles.of(workflow.experiment.name)
    files += [sweep.points, sweep.scores, sweep.summary, sweep.comparisons, sweep.figure_index, sweep.report]
    now = time.time() - 10_000
    for number, path in enumerate(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (now + number / 1000,) * 2)


def measure(case: str, *command: str, expected: str) -> dict:
    """Runs a command once; seconds, and the largest memory of any command so far in GB."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow" / "scripts")}
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    seconds = time.perf_counter() - began
    if expected not in done.stdout + done.stderr:
        raise SystemExit(f"{case}: expected '{expected}' in the output:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"case": case, "seconds": round(seconds, 1), "peak_gb": round(memory, 2)}


def print_size_per_job(count: int) -> None:
    """Prints the bytes that every job of a sweep gets, as Snakemake pickles them, and the size of the table on disk."""
    workflow = load_workflow({"sweep": str(write_sweep(Path("."), count))}, {})
    workflow.job_table.write(workflow.experiment.name)
    options = workflow.run_options
    size = len(pickle.dumps(options.as_config(), protocol=4))
    row = {"case": f"run_options of each job, {count} points", "bytes": size}
    print(json.dumps(row | {"table_bytes": Path(options.table).stat().st_size}), flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for part in ("Snakefile", "workflow", "config", "profiles"):
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, part)
        for count in (100, 1_000, 10_000):
            print_size_per_job(count)
        new, finished = write_sweep(Path("."), NEW), write_sweep(Path("."), FINISHED)
        snakemake = (sys.executable, "-m", "snakemake", "-n")
        plan = measure(
            f"make plan, {NEW} new points",
            *(sys.executable, "-m", "separation.commands.plan", "--sweep", str(new), "--json"),
            expected=f'"train_point": {NEW}',
        )
        print(json.dumps(plan), flush=True)
        pretend_finished(finished)
        nothing = measure(
            f"snakemake -n, {FINISHED} finished points",
            *snakemake, "--config", f"sweep={finished}",
            expected="Nothing to be done",
        )  # fmt: skip
        print(json.dumps(nothing), flush=True)
        shutil.rmtree("results")
        dry = measure(
            f"snakemake -n --quiet all, {NEW} new points",
            *snakemake, "--quiet", "all", "--config", f"sweep={new}",
            expected="",
        )  # fmt: skip
        print(json.dumps(dry), flush=True)
        Path("bare").mkdir()
        Path("bare/Snakefile").write_text(BARE)
        Path("bare/point.py").touch()
        bare = measure(
            f"snakemake -n --quiet all, {2 * NEW} jobs of two bare rules",
            *snakemake, "--quiet", "all", "--directory", "bare", "--snakefile", "bare/Snakefile",
            expected="",
        )  # fmt: skip
        print(json.dumps(bare), flush=True)
        print(json.dumps({"case": "this workflow to bare rules", "ratio": round(dry["seconds"] / bare["seconds"], 2)}))


if __name__ == "__main__":
    main()
