"""Fetches or builds a source. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.data.fetch import fetch_source
    from separation.data.sources.access import Access
    from separation.files.layout import script_output
    from separation.planning.run_options import RunOptions

    options = RunOptions.of(snakemake.config)
    locations = dict(options.jobs.sources[snakemake.wildcards.source])
    if snakemake.input.script:
        locations["script_output"] = script_output(snakemake.input.script[0])
    access = Access(
        workers=snakemake.threads,
        downloads=Path(options.downloads),
        offline=options.offline,
        locations=locations,
    )
    fetch_source(json.loads(snakemake.params.spec), Path(snakemake.output.manifest), access=access)
