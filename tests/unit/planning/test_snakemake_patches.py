"""What Snakemake looks up once instead of for every job is found all the same."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from snakemake import dag
from separation.planning.snakemake_patches import end_with_job_stats, known, make_lookups_once

looked_up = dag.script.get_source
def counted(path, *others):
    print("looked up", path)
    return looked_up(path, *others)
dag.script.get_source = counted
make_lookups_once()
make_lookups_once()
end_with_job_stats(workflow)

rule all:
    input: expand("{{name}}.out", name=list("abcd"))

@known
def threads_of(wildcards):
    return 1 if wildcards.name == "a" else 2

rule make:
    output: "{{name}}.out"
    threads: threads_of
    script: "{script}"
"""


def plan(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess:
    """`snakemake -n` on four jobs of one rule."""
    (folder / "Snakefile").write_text(SNAKEFILE.format(scripts=str(SCRIPTS), script=script))
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_script_is_opened_once_for_all_jobs_of_its_rule(tmp_path):
    (tmp_path / "make.py").write_text("")
    done = plan(tmp_path, "make.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("looked up") == 1
    assert done.stdout.count("threads: 2") == 3


def test_a_script_that_is_not_there_is_told(tmp_path):
    done = plan(tmp_path, "make.py")
    assert done.returncode == 1
    assert "make.py" in done.stdout


def test_a_script_by_wildcard_is_looked_up_for_every_job(tmp_path):
    for name in "abc":
        (tmp_path / f"make_{name}.py").write_text("")
    done = plan(tmp_path, "make_{wildcards.name}.py")
    assert done.returncode == 1
    assert "make_d.py" in done.stdout


def test_quiet_about_all_ends_with_the_job_stats(tmp_path):
    (tmp_path / "make.py").write_text("")
    done = plan(tmp_path, "make.py", "--quiet", "all")
    said = done.stdout
    assert done.returncode == 0, said
    assert re.search(r"make +4\n", said) and re.search(r"total +5\n", said)
    assert "a.out" not in said
    assert "a.out" in plan(tmp_path, "make.py").stdout
