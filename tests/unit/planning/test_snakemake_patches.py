"""Patches of Snakemake: they change no result, apply only to large sweeps, and are still needed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import dry_runs
from separation.planning import snakemake_patches

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
SNAKEFILE = """
import inspect, sys
sys.path.insert(0, {scripts!r})
from snakemake import common, dag
from snakemake.resources import Resource
from separation.planning.snakemake_patches import end_with_job_stats, with_known_parameters, patch_snakemake

get_source, signature = dag.script.get_source, inspect.signature
def counted_source(path, *others):
    print("opened", path)
    return get_source(path, *others)
def counted_signature(function, *args, **kwargs):
    name = getattr(function, "__qualname__", "")
    if name in ("Resource.evaluate", "threads_of"):
        print("inspected", name)
    return signature(function, *args, **kwargs)
dag.script.get_source = counted_source
print("patched", patch_snakemake({points}), patch_snakemake({points}))
inspect.signature = counted_signature
end_with_job_stats(workflow)

rule all:
    input: expand("{{name}}.out", name=list("abcd"))

@with_known_parameters
def threads_of(wildcards):
    return 1 if wildcards.name == "a" else 2

rule make:
    output: "{{name}}.out"
    threads: threads_of
    script: "{script}"
"""
MANY = snakemake_patches.LARGE_SWEEP_POINTS + 1


def plan(folder: Path, script: str, *options: str, points: int = MANY) -> subprocess.CompletedProcess:
    """`snakemake -n` on four jobs of one rule."""
    (folder / "Snakefile").write_text(SNAKEFILE.format(scripts=str(SCRIPTS), script=script, points=points))
    return dry_runs.snakemake(["--dry-run", "--cores", "2", *options], folder, os.environ)


def test_scripts_and_signatures_are_looked_up_once_for_all_jobs_of_a_rule(tmp_path):
    (tmp_path / "make.py").write_text("")
    done = plan(tmp_path, "make.py")
    assert done.returncode == 0, done.stderr
    assert "patched True True" in done.stdout
    assert done.stdout.count("opened") == 1
    assert done.stdout.count("inspected Resource.evaluate") == 0
    assert done.stdout.count("inspected threads_of") == 1
    assert done.stdout.count("threads: 2") == 3


def test_small_sweeps_use_an_unpatched_snakemake_that_looks_up_every_job(tmp_path):
    """If this fails, Snakemake looks them up once itself, and the patch can be removed."""
    (tmp_path / "make.py").write_text("")
    done = plan(tmp_path, "make.py", points=snakemake_patches.LARGE_SWEEP_POINTS)
    assert "patched False False" in done.stdout
    assert done.stdout.count("opened") == 4
    assert done.stdout.count("inspected Resource.evaluate") >= 4
    assert done.stdout.count("inspected threads_of") >= 4
    assert done.stdout.count("threads: 2") == 3


@pytest.mark.parametrize("version", ["9.26.0", "9.28.1", "10.0.0"])
def test_other_versions_of_snakemake_are_not_patched(monkeypatch, version):
    monkeypatch.setattr(snakemake_patches.snakemake, "__version__", version)
    assert not snakemake_patches.patch_snakemake(MANY)
    function = snakemake_patches.with_known_parameters(lambda wildcards: 1)
    assert not vars(function)


def test_a_missing_script_is_reported(tmp_path):
    done = plan(tmp_path, "make.py")
    assert done.returncode == 1
    assert "make.py" in done.stdout


def test_a_script_with_wildcards_is_looked_up_for_every_job(tmp_path):
    for name in "abc":
        (tmp_path / f"make_{name}.py").write_text("")
    done = plan(tmp_path, "make_{wildcards.name}.py")
    assert done.returncode == 1
    assert "make_d.py" in done.stdout


def test_quiet_about_all_ends_with_the_job_stats(tmp_path):
    (tmp_path / "make.py").write_text("")
    done = plan(tmp_path, "make.py", "--quiet", "all", points=2)
    assert done.returncode == 0, done.stdout
    assert re.search(r"make +4\n", done.stdout) and re.search(r"total +5\n", done.stdout)
    assert "a.out" not in done.stdout
    assert "a.out" in plan(tmp_path, "make.py").stdout
