"""Fetches or builds a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.data.sources import fetch_source

    fetch_source(json.loads(snakemake.params.spec), Path(snakemake.output.manifest), workers=snakemake.threads)
