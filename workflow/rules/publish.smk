"""From the tables of a sweep to people and services: all of it can be repeated, and is skipped where not configured.

In: points.csv, scores.parquet and the report of a sweep, the event logs of its points. Out: sheet.xlsx on request, and a
receipt of what was sent: results/sweeps/<sweep>/published/<service>.json.

Keys and credentials are read from the environment, by the jobs alone. `envvars:` would put their values into the command
lines of local jobs.
"""

import json

from separation.planning.run_options import sheet_destination


rule write_workbook:
    input:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
    output:
        workbook="results/sweeps/{sweep}/sheet.xlsx",
    log:
        "logs/write_workbook/{sweep}.log",
    benchmark:
        "results/benchmarks/write_workbook/{sweep}.tsv"
    group:
        "report"
    conda:
        ENVIRONMENT
    threads: asked("write_workbook", "threads")
    resources:
        mem_mb=memory("write_workbook"),
        runtime=asked("write_workbook", "runtime"),
        cpus_per_task=asked("write_workbook", "threads"),
    message:
        "Writing the workbook of {wildcards.sweep}"
    script:
        "../scripts/write_workbook.py"


# one rule for each tracker that is configured: sync_comet, sync_wandb, sync_mlflow
for tracker in WORK.settings.tracking["names"]:

    rule:
        name:
            f"sync_{tracker}"
        input:
            points="results/sweeps/{sweep}/points.csv",
            figures="results/sweeps/{sweep}/figures/index.json",
        output:
            receipt=update(f"results/sweeps/{{sweep}}/published/{tracker}.json"),
        log:
            f"logs/sync_{tracker}/{{sweep}}.log",
        benchmark:
            f"results/benchmarks/sync_{tracker}/{{sweep}}.tsv"
        conda:
            ENVIRONMENT
        threads: asked("sync_tracker", "threads")
        resources:
            mem_mb=memory("sync_tracker"),
            runtime=asked("sync_tracker", "runtime"),
            cpus_per_task=asked("sync_tracker", "threads"),
        params:
            spec=json.dumps({"tracker": tracker}),
        message:
            "Sending {wildcards.sweep} to its tracker"
        script:
            "../scripts/sync_tracker.py"


rule upload_sheet:
    input:
        points="results/sweeps/{sweep}/points.csv",
        scores="results/sweeps/{sweep}/scores.parquet",
        # pages that rows link to
        synced=synced_trackers(),
    output:
        receipt=update("results/sweeps/{sweep}/published/sheet.json"),
    log:
        "logs/upload_sheet/{sweep}.log",
    benchmark:
        "results/benchmarks/upload_sheet/{sweep}.tsv"
    conda:
        ENVIRONMENT
    threads: asked("upload_sheet", "threads")
    resources:
        mem_mb=memory("upload_sheet"),
        runtime=asked("upload_sheet", "runtime"),
        cpus_per_task=asked("upload_sheet", "threads"),
    params:
        spec=json.dumps(sheet_destination(WORK.run_options), sort_keys=True),
    message:
        "Uploading the sheet of {wildcards.sweep}"
    script:
        "../scripts/upload_sheet.py"
