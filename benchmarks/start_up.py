"""Start-up of each job: processor time until its rule's script has imported everything, relative to `import torch`.

    python benchmarks/start_up.py                      # every rule
    python benchmarks/start_up.py train_point -n 9     # one rule, nine repetitions
    python benchmarks/start_up.py --job 'tests/experiments/tiny_dpcl.yml'    # whole jobs of a sweep, too

Each measurement is a fresh process with one thread and a warm file cache; the repetitions of all rules alternate. The
import statements are those of the script, also the ones inside its body, and nussl where a rule uses it later. With
--job the sweep runs first, in a temporary folder, and each rule's whole job is shown as Snakemake measured it. Fails if
a script cannot be imported.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "workflow" / "scripts"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: rules that use nussl without importing it in the script
WITH_NUSSL = ("evaluate_point", "evaluate_baselines")
TIMES = "\nimport os\n_times = os.times()\nprint(_times.user + _times.system)"


def imports_of(script: Path) -> str:
    """The import statements of a script, also those inside its body, one per line."""
    nodes = ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    lines = ["from separation.machine.snakemake_job import skip_format_checkers", "skip_format_checkers()"]
    lines += [ast.unparse(node) for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    if script.stem in WITH_NUSSL:
        lines.append("from separation.nussl_compat import nussl")
    return "\n".join(lines)


def seconds(code: str) -> float:
    """Processor time of a fresh process that runs the code."""
    done = subprocess.run([sys.executable, "-c", code + TIMES], env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{code}\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def measure(programs: dict[str, str], repetitions: int) -> dict[str, list[float]]:
    """The ratio of each program's processor time to that of `import torch` in the same round."""
    ratios: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        torch = seconds("import torch")
        for name, code in programs.items():
            found = seconds(code)
            if repetition:  # the first round fills the file cache
                ratios[name].append(found / torch)
    return ratios


def whole_jobs(sweep: str) -> dict[str, list[float]]:
    """Processor time of each rule's jobs in a run of a sweep in a fresh copy of this repository."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv", "results", ".snakemake", "__pycache__", "logs")
        shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", f"sweep={sweep}"]
        done = subprocess.run(command, cwd=copy, env=ENVIRONMENT, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-4000:])
        times: dict[str, list[float]] = {}
        root = copy / "results" / "benchmarks"
        for path in sorted(root.rglob("*.tsv")):
            with open(path, encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file, delimiter="\t"):
                    if row.get("cpu_time") not in (None, "", "NA"):
                        times.setdefault(path.relative_to(root).parts[0], []).append(float(row["cpu_time"]))
        return times


def show(title: str, values: dict[str, list[float]]) -> None:
    print(f"{title:22} median  lowest  highest")
    for name, found in values.items():
        print(f"{name:22} {statistics.median(found):6.2f}  {min(found):6.2f}  {max(found):7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in SCRIPTS.glob("*.py"))
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"one of {', '.join(known)}; by default all")
    parser.add_argument("-n", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument("--job", metavar="SWEEP", help="also run this sweep and show its whole jobs")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.rules) - set(known))
    if unknown:
        parser.error(f"unknown rule {unknown[0]}; expected one of {', '.join(known)}")
    programs = {name: imports_of(SCRIPTS / f"{name}.py") for name in arguments.rules or known}
    show("imports / import torch", measure(programs, arguments.n))
    if arguments.job:
        torch = statistics.median(seconds("import torch") for _ in range(3))
        jobs = {name: [value / torch for value in found] for name, found in whole_jobs(arguments.job).items()}
        show("whole job / import torch", jobs)


if __name__ == "__main__":
    main()
