"""Uploads the results table of a sweep to Google Sheets. Called by Snakemake."""

import json
import os
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.atomic import read_json, write_json
    from separation.planning.run_options import RunOptions
    from separation.publishing.google_sheets import upload_sheet
    from separation.publishing.results_table import table_of_sweep

    options, receipt = RunOptions.of(snakemake.config), Path(snakemake.output.receipt)
    uploaded = upload_sheet(
        table_of_sweep(Path(snakemake.input.points), Path(snakemake.input.scores), options),
        credentials=Path(os.environ["PATH_TO_GOOGLE_CREDENTIALS"]),
        template=options.publishing["template"],
        patience=float(options.publishing["patience"]),
        known=read_json(receipt) if receipt.exists() else None,
        **json.loads(snakemake.params.spec),
    )
    write_json(receipt, uploaded)
