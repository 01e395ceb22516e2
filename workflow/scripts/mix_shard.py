"""Mixes a part of one split of a dataset. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.data.mixing import mix_shard

    first, stop = snakemake.params.mixtures
    mix_shard(
        json.loads(snakemake.params.spec),
        snakemake.wildcards.split,
        Path(snakemake.input.resampled),
        Path(snakemake.output.shard),
        range(first, stop),
        workers=snakemake.threads,
    )
