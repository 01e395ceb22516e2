"""Source-separation experiments: data, caches, training, evaluation, analysis, publishing.

Each stage is a file in workflow/rules and a target here: `snakemake train` runs up to that stage.
"""

import os

from snakemake.utils import min_version

min_version("9.27")


configfile: os.path.relpath(os.path.join(workflow.basedir, "config", "config.yaml"))


# the front page of `snakemake --report`
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# the image of every job under --sdm apptainer
container: WORKFLOW.settings.container


onstart:
    mark_folders(WORKFLOW.settings, os.environ)


rule data:
    input:
        mixture_manifests(),


rule cache:
    input:
        cache_manifests(),


rule train:
    input:
        rules.cache.input,
        trained_points(),


# from here on, targets include the checkpoint and the scores of every point, so that deleted ones are rebuilt
rule evaluate:
    input:
        trained_points(),
        scores_of_points(),
        scores_of_baselines(),
        scores_of_systems(),
        scores_of_validations(),


rule analyze:
    input:
        trained_points(),
        scores_of_points(),
        scores_of_validations(),
        scores_of_systems(),
        sweep_results(),


rule publish:
    input:
        rules.analyze.input,
        published(),


rule all:
    default_target: True
    input:
        rules.cache.input,
        rules.analyze.input,


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
