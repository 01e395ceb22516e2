"""Fills the cache of one split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.features.cache import populate_cache
    from separation.planning.run_options import RunOptions

    cache, split = snakemake.wildcards.cache, snakemake.wildcards.split
    populate_cache(
        json.loads(snakemake.params.spec),
        RunOptions.of(snakemake.config).jobs.caches[f"{cache}/{split}"],
        Path(snakemake.output.manifest),
        workers=snakemake.threads,
    )
