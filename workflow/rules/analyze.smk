"""From the scores of a sweep to tables, figures and the report.

In: the scores of every point and of the baselines. Out: results/sweeps/<sweep>/{points.csv,scores.parquet,summary.csv,
comparisons.csv,groups.csv,conditions.csv,sheet.csv,figures/,report.html}.

Learning curves and estimates in the points' folders are not declared as inputs: they are as old as the scores, and
thousands of declared files slow down planning. For the same reason collect_scores is in no group: Snakemake checks all
inputs of a group again whenever one of them is built.
"""

import json

from separation.experiment.ids import STAGE_VERSIONS


rule collect_scores:
    input:
        scores=scores_of_points(),
        baselines=scores_of_baselines(),
        validations=scores_of_validations(),
        systems=scores_of_systems(),
    output:
        points=SWEEP.points,
        scores=SWEEP.scores,
    log:
        "logs/collect_scores/{sweep}.log",
    benchmark:
        "results/benchmarks/collect_scores/{sweep}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("collect_scores")
    resources:
        **resources_of("collect_scores"),
    params:
        # removing a point from the sweep changes no file's time, so the result depends on the list itself
        spec=json.dumps(WORKFLOW.collected(), sort_keys=True),
    message:
        "Collecting the scores of {wildcards.sweep}"
    script:
        "../scripts/collect_scores.py"


rule summarize_sweep:
    input:
        points=SWEEP.points,
        scores=SWEEP.scores,
    output:
        summary=report(
            SWEEP.summary,
            category="Sweeps",
            labels={"result": "Points and baselines"},
            caption="../report/summary.rst",
        ),
        comparisons=report(
            SWEEP.comparisons,
            category="Sweeps",
            labels={"result": "Paired comparisons"},
            caption="../report/comparisons.rst",
        ),
        groups=SWEEP.groups,
        conditions=SWEEP.conditions,
        sheet=SWEEP.sheet,
    log:
        "logs/summarize_sweep/{sweep}.log",
    benchmark:
        "results/benchmarks/summarize_sweep/{sweep}.tsv"
    group:
        "report"
    conda:
        ENVIRONMENT
    threads: threads_of("summarize_sweep")
    resources:
        **resources_of("summarize_sweep"),
    params:
        version=STAGE_VERSIONS["summarize_sweep"],
    message:
        "Summarizing {wildcards.sweep}"
    script:
        "../scripts/summarize_sweep.py"


rule plot_sweep:
    input:
        points=SWEEP.points,
        scores=SWEEP.scores,
        summary=SWEEP.summary,
    output:
        manifest=SWEEP.figure_index,
    log:
        "logs/plot_sweep/{sweep}.log",
    benchmark:
        "results/benchmarks/plot_sweep/{sweep}.tsv"
    group:
        "report"
    conda:
        ENVIRONMENT
    threads: threads_of("plot_sweep")
    resources:
        **resources_of("plot_sweep"),
    message:
        "Drawing the figures of {wildcards.sweep}"
    script:
        "../scripts/plot_sweep.py"


rule render_report:
    input:
        points=SWEEP.points,
        scores=SWEEP.scores,
        summary=SWEEP.summary,
        comparisons=SWEEP.comparisons,
        figures=SWEEP.figure_index,
    output:
        report=report(
            SWEEP.report,
            category="Sweeps",
            labels={"result": "Report"},
            caption="../report/sweep.rst",
        ),
    log:
        "logs/render_report/{sweep}.log",
    benchmark:
        "results/benchmarks/render_report/{sweep}.tsv"
    group:
        "report"
    conda:
        ENVIRONMENT
    threads: threads_of("render_report")
    resources:
        **resources_of("render_report"),
    message:
        "Rendering the report of {wildcards.sweep}"
    script:
        "../scripts/render_report.py"
