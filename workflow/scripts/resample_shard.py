"""Resamples a part of a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.data.sources import resample_shard

    number, count = snakemake.params.part
    resample_shard(
        json.loads(snakemake.params.spec),
        Path(snakemake.input.organized),
        Path(snakemake.output.shard),
        number,
        count,
        workers=snakemake.threads,
    )
