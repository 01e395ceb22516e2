"""Resamples a source. Called by Snakemake."""

import json
import shutil
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once="organized"):
    from separation.data.resample import resample_source
    from separation.files.layout import shard_records

    manifest = Path(snakemake.output.manifest)
    shards = shard_records(manifest)
    resample_source(
        json.loads(snakemake.params.spec),
        Path(snakemake.input.organized),
        manifest,
        workers=snakemake.threads,
        shards=[shards / Path(shard).name for shard in snakemake.input.shards],
    )
    shutil.rmtree(shards, ignore_errors=True)
