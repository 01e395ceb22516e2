"""Runs a user's script that creates a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.data.sources.user_scripts import run_user_script
    from separation.planning.run_options import RunOptions

    locations = RunOptions.of(snakemake.config).jobs.sources[snakemake.wildcards.source]
    run_user_script(
        json.loads(snakemake.params.spec),
        Path(snakemake.output.manifest),
        Path(locations["file"]),
        Path(locations["yaml"]) if "yaml" in locations else None,
    )
