"""Resamples a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.data.sources import resample_source

    resample_source(
        json.loads(snakemake.params.spec),
        Path(snakemake.input.organized),
        Path(snakemake.output.manifest),
        workers=snakemake.threads,
        shards=[Path(shard) for shard in snakemake.input.shards],
    )
