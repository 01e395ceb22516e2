"""The whole workflow on a real Slurm of two nodes: submission, a cancelled job, a drained node, a retry, containers."""

import csv
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from projects import TINY, Project
from tiny_experiment import FOLDERS, ONE_SPLIT, edit

pytestmark = pytest.mark.xdist_group("test_slurm")

PARTITIONS = ["--default-resources", "mem_mb=1000", "runtime=60", "slurm_partition=cpu"]
PARTITIONS += ["--set-resources", "train_point:slurm_partition=gpu", "evaluate_point:slurm_partition=gpu"]
# options for a machine that only submits: jobs take their Python from another environment
SUBMIT_ONLY = ["--shared-fs-usage", "persistence", "input-output", "sources", "source-cache", "storage-local-copies"]
# The plugin waits ten seconds longer after each check in which no job had ended: most of the time of these short jobs.
CHECK_EVERY_SECOND = """
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
main()
"""
_SUBMITTED = re.compile(r"submitted with SLURM jobid (?P<id>\d+) \(log: \S*/logs/slurm/(?:rule|group)_(?P<rule>\w+?)/")


class Run:
    """A run of Snakemake in a project, on the cluster.

    Attributes:
        submitted: (Slurm's job id, rule or rules of the group), in order of submission.
        text: Output of Snakemake.
    """

    def __init__(self, project, slurm, environment, *arguments, python=sys.executable, disturb=None):
        process = subprocess.Popen(
            [str(python), "-c", CHECK_EVERY_SECOND, "--profile", "slurm", "--latency-wait", "10", *arguments],
            cwd=project.folder,
            env={**environment, **slurm.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(slurm, disturb, ended))
        try:
            if disturb:
                watcher.start()
            self.text, _ = process.communicate(timeout=900)
            self.code = process.returncode
        finally:
            process.kill()
            ended.set()
            if disturb:
                watcher.join()
        self.submitted = [(found["id"], found["rule"]) for found in _SUBMITTED.finditer(self.text)]

    @staticmethod
    def _watch(slurm, disturb, ended):
        """Calls `disturb` with the id, node and comment of every running job."""
        while not ended.wait(0.3):
            for line in slurm.call("squeue", "--noheader", "--states=R", "--format=%i|%N|%k", check=False).splitlines():
                disturb(*line.split("|"))


def accounted(slurm, jobs):
    """Slurm's accounting of some jobs, by id."""
    keys = ("JobIDRaw", "State", "NodeList", "Partition", "AllocTRES", "Submit", "Start")
    lines = slurm.call("sacct", "-X", "-n", "-P", f"--jobs={','.join(jobs)}", f"--format={','.join(keys)}").splitlines()
    return {line.split("|")[0]: dict(zip(keys, line.split("|"), strict=True)) for line in lines}


class Disturbance:
    """Cancels the first running training, and drains the node of the first job that fills a cache."""

    def __init__(self, slurm):
        self.slurm, self.cancelled, self.drained, self.before = slurm, "", "", ""

    def __call__(self, job, node, comment):
        if "train_point" in comment and not self.cancelled:
            self.slurm.call("scancel", job)
            self.cancelled = job
        if "populate_cache" in comment and not self.drained:
            self.slurm.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
            self.drained, self.before = node, job


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two points, whose three splits are one."""
    project = Project.clone(tmp_path_factory.mktemp("slurm_project"))
    edit(project.folder / TINY, *ONE_SPLIT)
    return project


@pytest.fixture(scope="module")
def whole(slurm, submitter, project, session_environment):
    """The tiny experiment up to its report, tracked by squeue, submitted from an environment without torch."""
    disturbance = Disturbance(slurm)
    run = Run(
        *(project, slurm, session_environment, *PARTITIONS, *SUBMIT_ONLY),
        *("--precommand", f"export PATH={sys.prefix}/bin:$PATH", "--config", f"sweep={TINY}"),
        python=submitter,
        disturb=disturbance,
    )
    slurm.call("scontrol", "update", f"nodename={disturbance.drained}", "state=resume", check=False)
    assert run.code == 0, run.text[-6000:]
    run.disturbance, run.jobs = disturbance, accounted(slurm, [job for job, _ in run.submitted])
    return run


def test_the_submitting_machine_has_neither_torch_nor_nussl(submitter):
    code = "import importlib.util as u; print([n for n in ('torch', 'nussl', 'scaper', 'zarr') if u.find_spec(n)])"
    assert subprocess.run([submitter, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_whole_workflow_builds_its_report(whole, project):
    report = project.folder / "results/sweeps/tiny_dpcl/report.html"
    assert report.stat().st_size > 0
    assert len(list(project.folder.glob("results/artifacts/dpcl-*/checkpoints/best.model.pth"))) == 2


def test_short_jobs_are_submitted_as_one(whole):
    rules = [rule for _, rule in whole.submitted]
    assert rules.count("source_fetch_source_organize_source_resample_source") == 1
    assert rules.count("report_plot_sweep_render_report_summarize_sweep") == 1
    assert not {"fetch_source", "organize_source", "plot_sweep", "render_report"} & set(rules)


def test_every_job_gets_its_partition_and_gpus(whole):
    for job, rule in whole.submitted:
        on_gpu = rule in ("train_point", "evaluate_point")
        kept = whole.jobs[job]
        assert kept["Partition"] == ("gpu" if on_gpu else "cpu")
        assert ("gres/gpu=1" in kept["AllocTRES"]) == on_gpu


def test_a_cancelled_job_is_resubmitted_with_more_memory(whole):
    jobs = [job for job, rule in whole.submitted if rule == "train_point"]
    states = {job: whole.jobs[job]["State"] for job in jobs}
    assert states.pop(whole.disturbance.cancelled).startswith("CANCELLED")
    assert list(states.values()) == ["COMPLETED"] * 2
    memory = sorted(re.search(r"mem=([\d.]+)([MG])", whole.jobs[job]["AllocTRES"]).group() for job in jobs)
    assert memory == ["mem=12000M", "mem=6000M", "mem=6000M"]
    others = {job for job, _ in whole.submitted} - {whole.disturbance.cancelled}
    assert {whole.jobs[job]["State"] for job in others} == {"COMPLETED"}


def test_a_drained_node_finishes_its_jobs_and_gets_no_new_ones(whole):
    drained, last = whole.disturbance.drained, whole.disturbance.before
    assert whole.jobs[last]["State"] == "COMPLETED" and whole.jobs[last]["NodeList"] == drained
    later = [job for job, rule in whole.submitted if rule in ("train_point", "evaluate_point", "collect_scores")]
    assert {whole.jobs[job]["NodeList"] for job in later} == set(whole.disturbance.slurm.nodes) - {drained}


def test_a_training_runs_on_the_device_that_slurm_assigned(whole, project):
    rows = []
    for path in project.folder.glob("results/benchmarks/train_point/*.devices.tsv"):
        with open(path, newline="") as file:
            rows += list(csv.DictReader(file, delimiter="\t"))
    assert {row["device"] for row in rows} <= {"0", "1"} and len(rows) >= 2
    finished = [row for row in rows if row["end"]]
    assert len(finished) == 2
    first, second = sorted(finished, key=lambda row: row["begin"])
    # both ran on the node that was not drained, so on one device only one after the other
    assert first["device"] != second["device"] or first["end"] <= second["begin"]


def test_no_process_is_left_running(whole, slurm):
    assert slurm.queued() == []
    daemons = {"munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd"}
    # the last step of a job that is reported as finished may still be closing
    deadline = time.monotonic() + 30
    left = {"?"}
    while left and time.monotonic() < deadline:
        left = {process.name() for process in slurm.processes()} - daemons
    assert left == set()


@pytest.fixture(scope="module")
def starved(whole, slurm, submitter, project, elsewhere, request):
    """One more point, tracked by sacct, whose training first requests too little memory.

    The three directories have moved out of the repository, and jobs run by apptainer if it is available.
    """
    for name in FOLDERS:
        moved = Path(elsewhere[name])
        moved.parent.mkdir(exist_ok=True)
        shutil.move(project.folder / "results" / moved.name, moved)
    edit(project.folder / "config/config.yaml", ("resources: {}", "resources: {train_point: {mem_mb: 450}}"))
    edit(project.folder / TINY, ("[0.01, 0.001]", "[0.01, 0.001, 0.1]"))
    try:
        python, container = submitter, request.getfixturevalue("in_apptainer")
    except pytest.skip.Exception:
        python, container = sys.executable, ["--config"]
    run = Run(
        *(project, slurm, elsewhere, "--slurm-status-command", "sacct", *container, f"sweep={TINY}"), python=python
    )
    run.jobs = accounted(slurm, [job for job, _ in run.submitted])
    return run


def test_a_training_that_ran_out_of_memory_is_retried_with_more(starved):
    assert starved.code == 0, starved.text[-6000:]
    states = [starved.jobs[job]["State"] for job, rule in starved.submitted if rule == "train_point"]
    assert states[0] in ("OUT_OF_MEMORY", "FAILED") and states[-1] == "COMPLETED"


def test_changed_resources_rebuild_nothing(starved):
    rules = [rule for _, rule in starved.submitted if rule != "train_point"]
    assert rules == ["evaluate_point", "collect_scores", "report_plot_sweep_render_report_summarize_sweep"]


def test_jobs_of_slurm_run_in_apptainer(starved, slurm, elsewhere, in_apptainer):
    """Their Python outside the image has no torch, and the directories are outside the repository."""
    assert starved.code == 0, starved.text[-6000:]
    assert len(list(Path(elsewhere["ARTIFACTS_DIRECTORY"]).glob("dpcl-*/checkpoints/best.model.pth"))) == 3
    assert slurm.queued() == []
