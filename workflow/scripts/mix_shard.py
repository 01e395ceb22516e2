"""Mixes one shard of a dataset split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.data.mix import mix_shard
    from separation.files.build_once import build_shard_once
    from separation.files.layout import shard_records, split_manifest

    resampled, (first, stop) = Path(snakemake.input.resampled), snakemake.params.mixtures
    manifest = split_manifest(resampled.parents[2], snakemake.wildcards.dataset, snakemake.wildcards.split)
    record = shard_records(manifest) / f"{snakemake.wildcards.shard}.json"
    with build_shard_once(manifest, record, [resampled]) as needed:
        if needed:
            mix_shard(
                json.loads(snakemake.params.spec),
                snakemake.wildcards.split,
                resampled,
                record,
                range(first, stop),
                workers=snakemake.threads,
            )
    Path(snakemake.output.shard).write_text("{}\n")
