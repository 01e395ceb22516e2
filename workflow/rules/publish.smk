"""From the tables of a sweep to people and services: repeatable, and skipped unless configured.

In: points.csv, scores.parquet and the report of a sweep, the event logs of its points. Out: sheet.xlsx on request, and
receipts of sent data: results/sweeps/<sweep>/published/<service>.json.

Only jobs read keys and credentials, from the environment. `envvars:` would put their values into the command lines of
local jobs.
"""

import json


rule write_workbook:
    input:
        points=SWEEP.points,
        scores=SWEEP.scores,
    output:
        workbook=SWEEP.workbook,
    log:
        "logs/write_workbook/{sweep}.log",
    benchmark:
        "results/benchmarks/write_workbook/{sweep}.tsv"
    group:
        "report"
    conda:
        ENVIRONMENT
    threads: threads_of("write_workbook")
    resources:
        **resources_of("write_workbook"),
    message:
        "Writing the workbook of {wildcards.sweep}"
    script:
        "../scripts/write_workbook.py"


# one rule per configured tracker: sync_comet, sync_wandb, sync_mlflow
for tracker in WORKFLOW.settings.tracking["names"]:

    rule:
        name:
            f"sync_{tracker}"
        input:
            points=SWEEP.points,
            figures=SWEEP.figure_index,
        output:
            receipt=update(SWEEP.receipt(tracker)),
        log:
            f"logs/sync_{tracker}/{{sweep}}.log",
        benchmark:
            f"results/benchmarks/sync_{tracker}/{{sweep}}.tsv"
        conda:
            ENVIRONMENT
        threads: threads_of("sync_tracker")
        resources:
            **resources_of("sync_tracker"),
        params:
            spec=json.dumps({"tracker": tracker}),
        message:
            "Sending {wildcards.sweep} to its tracker"
        script:
            "../scripts/sync_tracker.py"


rule upload_sheet:
    input:
        points=SWEEP.points,
        scores=SWEEP.scores,
        # pages that rows link to
        synced=synced_trackers(),
    output:
        receipt=update(SWEEP.receipt("sheet")),
    log:
        "logs/upload_sheet/{sweep}.log",
    benchmark:
        "results/benchmarks/upload_sheet/{sweep}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of("upload_sheet")
    resources:
        **resources_of("upload_sheet"),
    params:
        spec=json.dumps(RUN_OPTIONS.sheet_destination(WORKFLOW.job_table.common["info"]), sort_keys=True),
    message:
        "Uploading the sheet of {wildcards.sweep}"
    script:
        "../scripts/upload_sheet.py"
