"""Resamples a source. Called by Snakemake."""

import json
import shutil
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once="organized"):
    from separation.data.resample import resample_source

    manifest = Path(snakemake.output.manifest)
    resample_source(
        json.loads(snakemake.params.spec),
        Path(snakemake.input.organized),
        manifest,
        workers=snakemake.threads,
        shards=[manifest.parent / "shards" / Path(shard).name for shard in snakemake.input.shards],
    )
    shutil.rmtree(manifest.parent / "shards", ignore_errors=True)
