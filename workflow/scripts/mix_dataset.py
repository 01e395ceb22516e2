"""Mixes one split of a dataset. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.data.mixing import mix_dataset

    mix_dataset(
        json.loads(snakemake.params.spec),
        snakemake.wildcards.split,
        Path(snakemake.input.resampled),
        Path(snakemake.output.manifest),
        workers=snakemake.threads,
        shards=[Path(shard) for shard in snakemake.input.shards],
    )
