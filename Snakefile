"""Source-separation experiments: data, caches, training, evaluation, analysis, publishing.

Each stage is a file in workflow/rules and a target here: `snakemake train` runs up to that stage.
"""

import os

from snakemake.utils import min_version

min_version("9.27")


configfile: os.path.relpath(os.path.join(workflow.basedir, "config", "config.yaml"))


# what `snakemake --report` says of the whole
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# every job runs in it under --sdm apptainer
container: WORK.settings.container


onstart:
    mark_folders(WORK.settings, os.environ)


rule all:
    default_target: True
    input:
        cache_manifests(),
        trained_points(),
        scores_of_points(),
        sweep_results(),


rule data:
    input:
        mixture_manifests(),


rule cache:
    input:
        cache_manifests(),


rule train:
    input:
        cache_manifests(),
        trained_points(),


rule evaluate:
    input:
        trained_points(),
        scores_of_points(),
        scores_of_baselines(),


rule analyze:
    input:
        trained_points(),
        scores_of_points(),
        sweep_results(),


rule publish:
    input:
        trained_points(),
        scores_of_points(),
        sweep_results(),
        published(),


localrules:
    all,
    data,
    cache,
    train,
    evaluate,
    analyze,
    publish,


include: "workflow/rules/data.smk"
include: "workflow/rules/cache.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/analyze.smk"
include: "workflow/rules/publish.smk"
