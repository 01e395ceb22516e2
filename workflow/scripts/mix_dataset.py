"""Mixes one split of a dataset. Called by Snakemake."""

import json
import shutil
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once="resampled"):
    from separation.data.mix import mix_dataset

    manifest = Path(snakemake.output.manifest)
    mix_dataset(
        json.loads(snakemake.params.spec),
        snakemake.wildcards.split,
        Path(snakemake.input.resampled),
        manifest,
        workers=snakemake.threads,
        shards=[manifest.parent / "shards" / Path(shard).name for shard in snakemake.input.shards],
    )
    shutil.rmtree(manifest.parent / "shards", ignore_errors=True)
