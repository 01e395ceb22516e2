"""Organizes a source by class. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.data.organize import organize_source
    from separation.data.sources.access import Access
    from separation.planning.run_options import RunOptions

    locations = RunOptions.of(snakemake.config).jobs.sources[snakemake.wildcards.source]
    organize_source(
        json.loads(snakemake.params.spec),
        Path(snakemake.input.fetched),
        Path(snakemake.output.manifest),
        Access(locations=locations),
    )
