"""What all stages share: the expanded sweep, the places of files, the names of wildcards.

In: config, config/experiments, config/datasets. Out: `WORK`, which knows everything that has to be made, and the
functions by which rules ask for files.
"""

import gc
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir) / "workflow" / "scripts"))

from separation.planning.container_mounts import show_to_jobs
from separation.errors import UserError
from separation.machine.gpus import check_num_gpus, count_gpus
from separation.planning.snakemake_patches import end_with_job_stats, known, make_lookups_once
from separation.planning.workflow import load_workflow
from separation.planning.speech_recordings import reachable_packages
from separation.machine.run_id import name_run
from separation.planning.shared_folders import check_folders, mark_folders
from separation.planning.sweep_names import check_name
from separation.planning.changed_sources import check_sources

# Planning makes millions of objects that live to the end; looking through them again and again is a tenth of its time.
gc.set_threshold(200_000, 50, 50)
make_lookups_once()
end_with_job_stats(workflow)

try:
    # jobs go by the answer that the main process was given
    WORK = load_workflow(config, os.environ, reachable_packages if workflow.is_main_process else None)
    check_name(WORK)
    if workflow.is_main_process:
        check_sources(WORK)
    else:
        check_folders(WORK.settings, os.environ)
    GPUS = count_gpus(config.get("gpus", 0), os.environ, config.get("gpu_slots", 1))
    if workflow.is_main_process:
        check_num_gpus((training.num_gpus for training in WORK.trainings.values()), GPUS, config.get("gpu_slots", 1))
except UserError as problem:
    # a user's mistake is one line, not a traceback
    print(f"Error: {problem}", file=sys.stderr)
    sys.exit(1)

name_run(os.environ)

DATA = str(WORK.settings.data)
CACHE = str(WORK.settings.cache)
ARTIFACTS = str(WORK.settings.artifacts)
# what jobs run in under --sdm conda
ENVIRONMENT = "../../envs/environment.yml"
SWEEP = f"results/sweeps/{WORK.experiment.name}"

# Settings that change no result go to the jobs by way of config: `params` would make a job run again for them.
config["run_options"] = WORK.run_options

if workflow.deployment_settings.deployment_method:
    show_to_jobs(WORK.settings, WORK.run_options, GPUS)


wildcard_constraints:
    source=r"[a-z0-9_]+-[0-9a-f]{12}",
    organized=r"organized_[0-9a-f]{8}",
    resampled=r"resampled_\d+_[0-9a-f]{8}",
    dataset=r"[a-z0-9_]+-[0-9a-f]{12}",
    # not the folders of a source, which lie as deep
    split=r"(?!(?:fetched|script)\b|organized_|resampled_)[A-Za-z0-9_]+",
    # Snakemake reads no open count in braces
    shard=r"\d\d\d\d+",
    cache=r"[a-z0-9_]+-[0-9a-f]{12}",
    point=r"[a-z0-9_]+-[a-z0-9_]+-s\d+-[0-9a-f]{12}",
    evaluation=r"[a-z0-9_]+-[0-9a-f]{12}",
    baselines=r"[a-z0-9_]+-[0-9a-f]{12}",
    sweep=r"[A-Za-z0-9][A-Za-z0-9_.-]*",


def said_of_points(message):
    """The message of a point's job; none in a large sweep, where filling them in is a tenth of the time of planning."""
    return message if len(WORK.trainings) <= 1000 else None


def asked(rule, resource):
    """What config asks for a rule's jobs: threads, mem_mb or runtime."""
    return WORK.settings.resources[rule][resource]


def memory(rule):
    """The memory of a rule's jobs, MB. A job that a cluster stopped because it took more asks for more the next time."""
    once = asked(rule, "mem_mb")
    return known(lambda wildcards, attempt: once * attempt)


@known
def processes_of(wildcards):
    """The processes that train a point together."""
    return WORK.trainings[wildcards.point].num_gpus


@known
def training_threads(wildcards):
    """The threads of all processes of a training."""
    return asked("train_point", "threads") * processes_of(wildcards)


def script_manifest(wildcards):
    """What the script of a source has made; other sources have none."""
    made = "file" in WORK.run_options["places"].get(wildcards.source, {})
    return [f"{DATA}/{wildcards.source}/script/manifest.json"] if made else []


def organized_manifest(wildcards):
    organized = WORK.resampled[wildcards.source, wildcards.resampled][0]
    return f"{DATA}/{wildcards.source}/{organized}/manifest.json"


def resampled_manifest(wildcards):
    dataset = WORK.datasets[wildcards.dataset]
    return f"{DATA}/{dataset.source}/{dataset.resampled}/manifest.json"


def shard_records(name, count):
    """What tells that the shards of something large are there; something small has none."""
    return [f"results/shards/{name}/{number:04d}.json" for number in range(count)] if count > 1 else []


def mixture_manifests():
    """The manifest of every split that is mixed for this sweep."""
    splits = {split for training in WORK.trainings.values() for split in split_files(training.splits.values())}
    return sorted(splits)


def split_files(splits):
    """The manifests by which rules depend on splits; a user's own folder has none."""
    return [split.manifest for split in splits if split.manifest is not None]


def cache_manifests():
    """The manifest of every cache that this sweep reads."""
    return [cache_manifest(cache, split) for cache, split in WORK.caches]


def cache_manifest(cache, split):
    return f"{CACHE}/{cache}/{split}.json"


def trained_points():
    """The checkpoint of every point."""
    return [f"{ARTIFACTS}/{point}/checkpoints/best.model.pth" for point in WORK.trainings]


def score_file(point, evaluation):
    return f"{ARTIFACTS}/{point}/evaluations/{evaluation}/scores.parquet"


def scores_of_points():
    """The scores of every point under each of its evaluations."""
    return [score_file(point, evaluation) for point, evaluation in WORK.evaluations]


def scores_of_baselines():
    """The scores of the baselines that the points are held against."""
    return [f"{ARTIFACTS}/baselines/{baselines}/scores.parquet" for baselines in WORK.baselines]


def sweep_results():
    """What a sweep as a whole leads to."""
    return [
        f"{SWEEP}/{name}" for name in ("points.csv", "scores.parquet", "summary.csv", "comparisons.csv", "report.html")
    ]


def receipt(service):
    return f"{SWEEP}/published/{service}.json"


def synced_trackers():
    """The receipts of the trackers that are configured; no rule sends anything to the others."""
    return [receipt(tracker) for tracker in WORK.settings.tracking["names"]]


def published():
    """What `publish` asks for beside the report."""
    publishing = WORK.settings.publishing
    workbook = [f"{SWEEP}/sheet.xlsx"] if publishing["xlsx"] else []
    return [*workbook, *synced_trackers(), *([receipt("sheet")] if publishing["sheet"] else [])]


def cache_workers(wildcards):
    """num_cache_workers of the sweep's block, else what config asks for."""
    return WORK.cache_workers(wildcards.cache, wildcards.split, asked("populate_cache", "threads"))


def training_inputs(wildcards):
    """What a point learns from: its caches, which follow from the mixtures, or the mixtures where it has none."""
    training = WORK.trainings[wildcards.point]
    if training.caches:
        return [cache_manifest(training.caches[key], training.splits[key].split) for key in ("train", "val")]
    return split_files([training.splits["train"], training.splits["val"]])


if str(config.get("gpus")) == "auto" and not GPUS:
    WORK.notices.append("0 GPUs: training on the CPU")
if GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", GPUS)

# once for a run, not again in each of its jobs
if workflow.is_main_process:
    for notice in WORK.notices:
        print(f"Notice: {notice}", file=sys.stderr)
