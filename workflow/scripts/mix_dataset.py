"""Mixes one split of a dataset. Called by Snakemake."""

import json
import shutil
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once="resampled"):
    from separation.data.mix import mix_dataset
    from separation.files.layout import shard_records

    manifest = Path(snakemake.output.manifest)
    shards = shard_records(manifest)
    mix_dataset(
        json.loads(snakemake.params.spec),
        snakemake.wildcards.split,
        Path(snakemake.input.resampled),
        manifest,
        workers=snakemake.threads,
        shards=[shards / Path(shard).name for shard in snakemake.input.shards],
    )
    shutil.rmtree(shards, ignore_errors=True)
