"""Everyday commands, as in the README."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from projects import ROOT, TINY, planned_jobs


def test_the_default_sweep_plans_eight_points_on_one_dataset(fresh):
    planned = fresh.planned("--config", "sweep=music_dpcl")
    assert planned["train_point"] == planned["evaluate_point"] == 8
    assert planned["mix_dataset"] == planned["populate_cache"] == 3
    for rule in ("fetch_source", "organize_source", "resample_source", "evaluate_baselines", "render_report"):
        assert planned[rule] == 1
    assert fresh.planned() == planned, "it is the default"


@pytest.mark.parametrize(
    "target, last",
    [
        ("data", "mix_dataset"),
        ("cache", "populate_cache"),
        ("train", "train_point"),
        ("evaluate", "evaluate_point"),
        ("analyze", "render_report"),
        ("publish", "render_report"),
    ],
)
def test_targets_run_up_to_their_stage(fresh, target, last):
    planned = fresh.planned(target)
    order = ["mix_dataset", "populate_cache", "train_point", "evaluate_point", "render_report"]
    later = order[order.index(last) + 1 :]
    assert last in planned and not set(later) & set(planned)


@pytest.mark.parametrize("profile, notices", [("local", 0), ("local-gpu", 1)])
def test_profiles_are_found_by_name_and_without_gpus_one_uses_the_cpu(fresh, profile, notices):
    done = fresh.run("-n", "--profile", profile, CUDA_VISIBLE_DEVICES="")
    assert planned_jobs(done)["train_point"] == 8
    assert done.stderr.count("0 GPUs: training on the CPU") == notices


def test_the_dag_can_be_piped_to_dot(fresh):
    done = fresh.run("--dag")
    drawn = subprocess.run(["dot", "-Tsvg"], input=done.stdout, capture_output=True, text=True, check=True)
    assert drawn.stdout.count("train_point") == 8


def test_overrides_change_the_plan(fresh):
    assert (
        fresh.planned("--config", f"sweep={TINY}", "set=train_config.learning_rate=[0.1,0.2,0.3]")["train_point"] == 3
    )


def test_snakemake_lint_is_clean(fresh):
    assert fresh.run("--lint", check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["sweep=music_dpc"], "config/experiments/music_dpc.yml: no such experiment; did you mean 'music_dpcl'?"),
        (["sweep=nowhere/x.yml"], "nowhere/x.yml: no such file"),
        (["swep=music_dpcl"], "unknown key; did you mean 'sweep'?"),
        ([f"sweep={TINY}", "set=train_config.epochs=2"], "set=train_config.epochs: matches nothing in this experiment"),
        ([f"sweep={TINY}", "set=train_config.num_epochs=two"], "expected a whole number, found 'two'"),
        ([f"sweep={TINY}", "set=nothing"], "expected key=value, found 'nothing'"),
        ([f"sweep={TINY}", "gpus=many"], "gpus: expected"),
        ([f"sweep={TINY}", "gpus=2", "gpu_slots=0"], "gpu_slots: expected"),
        (
            [f"sweep={TINY}", "gpus=1", "set=train_config.num_gpus=2"],
            "num_gpus: expected at most 1, the number of GPUs of this run, found 2",
        ),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_without_traceback(fresh, arguments, message):
    done = fresh.run("-n", "--config", *arguments, check=False)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "Error" in line]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    "before, after, line, message",
    [
        ("num_epochs: 2", "num_epoch: 2", 28, "train_config.num_epoch: unknown key; did you mean 'num_epochs'?"),
        ("num_epochs: 2", "num_epochs: [", None, "invalid YAML: "),
        ("num_epochs: 2", "num_epochs: ${EPOCHS_UNSET}", 28, "${EPOCHS_UNSET} is not set"),
        ("num_epochs: 2", "num_epochs: two", 28, "train_config.num_epochs: expected a whole number, found 'two'"),
        (
            "dataset: tiny_music}\n  val",
            "dataset: tiny_musik}\n  val",
            None,
            "no such dataset; did you mean 'tiny_music'?",
        ),
    ],
)
def test_mistakes_in_files_are_one_line_with_file_and_line(fresh, before, after, line, message):
    path = fresh.folder / TINY
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    done = fresh.run("-n", "--config", f"sweep={TINY}", check=False)
    (error,) = [found for found in done.stderr.splitlines() if "Error" in found]
    assert done.returncode == 1 and message in error and "Traceback" not in done.stderr
    if line is not None:
        number = next(i for i, found in enumerate(path.read_text().splitlines(), 1) if after in found)
        assert f"{TINY}:{number}: " in error


def test_parsing_prints_nothing_and_imports_nothing_heavy(fresh):
    code = (
        "import sys; sys.path.insert(0, 'workflow/scripts'); import os;"
        "from separation.planning.expansion import load_workflow;"
        "load_workflow({'sweep': 'music_dpcl'}, os.environ);"
        "print(sorted({'torch', 'nussl', 'comet_ml', 'numpy', 'pandas', 'scaper'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=fresh.folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_documented_files_exist():
    for name in (
        "Snakefile",
        "Makefile",
        "README.md",
        "LICENSE",
        "envs/requirements.lock",
        "profiles/default/config.yaml",
    ):
        assert (ROOT / name).is_file(), name
    assert shutil.which("sox"), "sox is needed to mix"
    assert Path(ROOT / "local").is_symlink() and Path(ROOT / "local-gpu").is_symlink()
