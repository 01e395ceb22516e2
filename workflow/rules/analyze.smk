"""From the scores of a sweep to tables, figures and the report.

In: the scores of every point and of the baselines. Out: results/sweeps/<sweep>/{points.csv,scores.parquet,summary.csv,
comparisons.csv,groups.csv,conditions.csv,sheet.csv,figures/,report.html}.

Learning curves and estimates are read from the points' folders without being asked for: they are as old as the scores, and
thousands of files asked for once more make planning slower.
"""

import json


rule collect_scores:
    input:
        scores=scores_of_points(),
        baselines=scores_of_baselines(),
    output:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
    log:
        "logs/collect_scores/{sweep}.log",
    benchmark:
        "results/benchmarks/collect_scores/{sweep}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        # a point that leaves the sweep changes no file's time, so the list itself is what the result depends on
        spec=json.dumps(WORK.table(), sort_keys=True),
    message:
        "Collecting the scores of {wildcards.sweep}"
    script:
        "../scripts/collect_scores.py"


rule summarize_sweep:
    input:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
    output:
        summary=report(
            "results/sweeps/{sweep}/summary.csv",
            category="Sweeps",
            labels={"result": "Points and baselines"},
            caption="../report/summary.rst",
        ),
        comparisons=report(
            "results/sweeps/{sweep}/comparisons.csv",
            category="Sweeps",
            labels={"result": "Paired comparisons"},
            caption="../report/comparisons.rst",
        ),
        groups="results/sweeps/{sweep}/groups.csv",
        conditions="results/sweeps/{sweep}/conditions.csv",
        sheet="results/sweeps/{sweep}/sheet.csv",
    log:
        "logs/summarize_sweep/{sweep}.log",
    benchmark:
        "results/benchmarks/summarize_sweep/{sweep}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Summarizing {wildcards.sweep}"
    script:
        "../scripts/summarize_sweep.py"


rule plot_sweep:
    input:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
        summary="results/sweeps/{sweep}/summary.csv",
    output:
        manifest="results/sweeps/{sweep}/figures/index.json",
    log:
        "logs/plot_sweep/{sweep}.log",
    benchmark:
        "results/benchmarks/plot_sweep/{sweep}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Drawing the figures of {wildcards.sweep}"
    script:
        "../scripts/plot_sweep.py"


rule render_report:
    input:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
        summary="results/sweeps/{sweep}/summary.csv",
        comparisons="results/sweeps/{sweep}/comparisons.csv",
        figures="results/sweeps/{sweep}/figures/index.json",
    output:
        report=report(
            "results/sweeps/{sweep}/report.html",
            category="Sweeps",
            labels={"result": "Report"},
            caption="../report/sweep.rst",
        ),
    log:
        "logs/render_report/{sweep}.log",
    benchmark:
        "results/benchmarks/render_report/{sweep}.tsv"
    resources:
        mem_mb=2000,
        runtime=30,
    message:
        "Rendering the report of {wildcards.sweep}"
    script:
        "../scripts/render_report.py"
