"""Resamples one shard of a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.data.resample import resample_shard
    from separation.files.build_once import build_shard_once
    from separation.files.layout import MANIFEST, shard_records

    organized, (number, count) = Path(snakemake.input.organized), snakemake.params.part
    manifest = organized.parents[1] / snakemake.wildcards.resampled / MANIFEST
    record = shard_records(manifest) / f"{snakemake.wildcards.shard}.json"
    with build_shard_once(manifest, record, [organized]) as needed:
        if needed:
            resample_shard(
                json.loads(snakemake.params.spec), organized, record, number, count, workers=snakemake.threads
            )
    Path(snakemake.output.shard).write_text("{}\n")
