"""Definitions for all stages: the expanded sweep, names of files, and wildcards.

In: config, config/experiments, config/datasets. Out: `WORKFLOW`, the work of the sweep, and the functions that give rules
their files.
"""

import gc
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from separation.errors import UserError
from separation.files import layout
from separation.machine.gpus import check_num_gpus, count_gpus
from separation.machine.run_id import set_run_id
from separation.planning.changed_sources import check_sources
from separation.planning.container_mounts import mount_for_jobs
from separation.planning.expansion import load_workflow
from separation.planning.shared_folders import check_folders, mark_folders
from separation.planning.snakemake_patches import (
    LARGE_SWEEP_POINTS,
    end_with_job_stats,
    patch_snakemake,
    with_known_parameters,
)
from separation.planning.speech_recordings import packages_unreachable_reason
from separation.planning.sweep_names import check_name

# Planning creates millions of objects that live to the end; repeated collection takes a tenth of its time.
gc.set_threshold(200_000, 50, 50)

try:
    # jobs use the result that the main process stored
    WORKFLOW = load_workflow(config, os.environ, packages_unreachable_reason if workflow.is_main_process else None)
    check_name(WORKFLOW)
    if workflow.is_main_process:
        check_sources(WORKFLOW)
    else:
        check_folders(WORKFLOW.settings, os.environ)
    GPUS = count_gpus(config.get("gpus", 0), os.environ, config.get("gpu_slots", 1))
    if workflow.is_main_process:
        check_num_gpus(
            (training.num_gpus for training in WORKFLOW.trainings.values()), GPUS, config.get("gpu_slots", 1)
        )
except UserError as problem:
    # a user's mistake is one line, not a traceback
    print(f"Error: {problem}", file=sys.stderr)
    sys.exit(1)

patch_snakemake(len(WORKFLOW.trainings))
end_with_job_stats(workflow)
set_run_id(os.environ)

DATA, CACHE, ARTIFACTS = WORKFLOW.settings.data, WORKFLOW.settings.cache, WORKFLOW.settings.artifacts
# the environment of jobs under --sdm conda
ENVIRONMENT = "../../envs/environment.yml"
RESULTS = layout.SweepFiles.of(WORKFLOW.experiment.name)

# Settings that change no result reach jobs through config: `params` would make a job run again for them.
RUN_OPTIONS = WORKFLOW.run_options
config["run_options"] = RUN_OPTIONS.as_config()
if not workflow.output_settings.dryrun:
    WORKFLOW.job_table.write(WORKFLOW.experiment.name)

if workflow.deployment_settings.deployment_method:
    paths = [*WORKFLOW.job_table.strings(), *RUN_OPTIONS.strings()]
    mount_for_jobs(WORKFLOW.settings, paths, GPUS)


wildcard_constraints:
    source=r"[a-z0-9_]+-[0-9a-f]{12}",
    organized=r"organized_[0-9a-f]{8}",
    resampled=r"resampled_\d+_[0-9a-f]{8}",
    dataset=r"[a-z0-9_]+-[0-9a-f]{12}",
    # not the folders of a source, which have the same depth
    split=r"(?!(?:fetched|script)\b|organized_|resampled_)[A-Za-z0-9_]+",
    # Snakemake cannot parse {4,}
    shard=r"\d\d\d\d+",
    cache=r"[a-z0-9_]+-[0-9a-f]{12}",
    point=r"[a-z0-9_]+-[a-z0-9_]+-s\d+-[0-9a-f]{12}",
    evaluation=r"[a-z0-9_]+-[0-9a-f]{12}",
    baselines=r"[a-z0-9_]+-[0-9a-f]{12}",
    system=r"[a-z0-9_]+-[0-9a-f]{12}",
    sweep=r"[A-Za-z0-9][A-Za-z0-9_.-]*",


# files as rules declare them, with wildcards -------------------------------------------------------------------------

POINT = layout.PointFolder(ARTIFACTS / "{point}")
EVALUATION = POINT.evaluation("{evaluation}")
VALIDATION = POINT.validation("{evaluation}")
SWEEP = layout.SweepFiles.of("{sweep}")


# resources of jobs -----------------------------------------------------------------------------------------------------


def threads_of(rule):
    """The threads of a rule's jobs, by config."""
    return WORKFLOW.settings.resources[rule]["threads"]


def resources_of(rule, threads=None):
    """The memory, time and CPUs of a rule's jobs, by config.

    A job that ran out of memory gets more in its next attempt.
    """
    configured = WORKFLOW.settings.resources[rule]
    return {
        "mem_mb": with_known_parameters(lambda wildcards, attempt: configured["mem_mb"] * attempt),
        "runtime": configured["runtime"],
        "cpus_per_task": threads or configured["threads"],
    }


def message_of_points(message):
    """The message of a point's job; none in a large sweep, where formatting takes a tenth of the time of planning."""
    return message if len(WORKFLOW.trainings) <= LARGE_SWEEP_POINTS else None


@with_known_parameters
def processes_of(wildcards):
    """The number of processes that train a point together."""
    return WORKFLOW.trainings[wildcards.point].num_gpus


@with_known_parameters
def training_threads(wildcards):
    """The number of threads of a training job in all processes."""
    return threads_of("train_point") * processes_of(wildcards)


def cache_workers(wildcards):
    """num_cache_workers of the sweep's block, or the threads in config."""
    workers = WORKFLOW.cache_workers.get((wildcards.cache, wildcards.split), threads_of("populate_cache"))
    return max(1, workers)


# inputs of jobs --------------------------------------------------------------------------------------------------------


def script_manifest(wildcards):
    """The output of a source's script; other sources have none."""
    has_script = "file" in WORKFLOW.job_table.sources.get(wildcards.source, {})
    return [layout.source_manifest(DATA, wildcards.source, "script")] if has_script else []


def organized_manifest(wildcards):
    organized, _ = WORKFLOW.resampled[wildcards.source, wildcards.resampled]
    return layout.source_manifest(DATA, wildcards.source, organized)


def resampled_manifest(wildcards):
    dataset = WORKFLOW.datasets[wildcards.dataset]
    return layout.source_manifest(DATA, dataset.source, dataset.resampled)


def shard_records(name, count):
    """The records of shards; work in one job has none."""
    return [f"results/shards/{name}/{number:04d}.json" for number in range(count)] if count > 1 else []


def split_files(splits):
    """The manifests of splits that the workflow mixes; a user's own folder has none."""
    return [split.manifest for split in splits if split.manifest is not None]


def training_inputs(wildcards):
    """The caches of a point; without a cache, its mixtures."""
    training = WORKFLOW.trainings[wildcards.point]
    if training.caches:
        splits = ((training.caches[key], training.splits[key].split) for key in ("train", "val"))
        return [layout.cache_manifest(CACHE, cache, split) for cache, split in splits]
    return split_files([training.splits["train"], training.splits["val"]])


# inputs of target rules ----------------------------------------------------------------------------------------------


def mixture_manifests():
    """The manifest of every split that is mixed for this sweep."""
    return sorted(
        {split for training in WORKFLOW.trainings.values() for split in split_files(training.splits.values())}
        | set(split_files(split for _, split in WORKFLOW.systems.values()))
    )


def cache_manifests():
    """The manifest of every cache that this sweep reads."""
    return [layout.cache_manifest(CACHE, cache, split) for cache, split in WORKFLOW.caches]


def trained_points():
    """The checkpoint of every point."""
    return [layout.PointFolder(ARTIFACTS / point).best_checkpoint for point in WORKFLOW.trainings]


def scores_of_points():
    """The scores of every point under each of its evaluations."""
    folders = (
        layout.PointFolder(ARTIFACTS / point).evaluation(evaluation) for point, evaluation in WORKFLOW.evaluations
    )
    return [folder.scores for folder in folders]


def scores_of_validations():
    """The scores on the validation split, where they choose among the points."""
    folders = (
        layout.PointFolder(ARTIFACTS / point).validation(evaluation) for point, evaluation in WORKFLOW.validations
    )
    return [folder.scores for folder in folders]


def scores_of_baselines():
    """The scores of the baselines of the points."""
    return [layout.baseline_scores(ARTIFACTS, baselines) for baselines in WORKFLOW.baselines]


def scores_of_systems():
    """The scores of other programs' estimates."""
    return [layout.system_scores(ARTIFACTS, system) for system in WORKFLOW.systems]


def sweep_results():
    """The tables of the whole sweep, and its report."""
    return [RESULTS.points, RESULTS.scores, RESULTS.summary, RESULTS.comparisons, RESULTS.report]


def synced_trackers():
    """The receipts of the configured trackers; only they have a rule."""
    return [RESULTS.receipt(tracker) for tracker in WORKFLOW.settings.tracking["names"]]


def published():
    """The outputs of publishing that are configured."""
    publishing = WORKFLOW.settings.publishing
    workbook = [RESULTS.workbook] if publishing["xlsx"] else []
    return [*workbook, *synced_trackers(), *([RESULTS.receipt("sheet")] if publishing["sheet"] else [])]


if str(config.get("gpus")) == "auto" and not GPUS:
    WORKFLOW.notices.append("0 GPUs: training on the CPU")
if GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS)

# once per run, not in each of its jobs
if workflow.is_main_process:
    for notice in WORKFLOW.notices:
        print(f"Notice: {notice}", file=sys.stderr)
