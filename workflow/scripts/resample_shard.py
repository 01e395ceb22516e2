"""Resamples a part of a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.data.resample import resample_shard
    from separation.files.build_once import shard_once

    organized, (number, count) = Path(snakemake.input.organized), snakemake.params.part
    folder = organized.parents[1] / snakemake.wildcards.resampled
    record = folder / "shards" / f"{snakemake.wildcards.shard}.json"
    with shard_once(folder / "manifest.json", record, [organized]) as needed:
        if needed:
            resample_shard(
                json.loads(snakemake.params.spec), organized, record, number, count, workers=snakemake.threads
            )
    Path(snakemake.output.shard).write_text("{}\n")
