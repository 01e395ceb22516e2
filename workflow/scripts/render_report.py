"""Renders the report of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import SweepFiles
    from separation.planning.run_options import RunOptions
    from separation.report.provenance import provenance_of
    from separation.report.render import render_report

    options = RunOptions.of(snakemake.config)
    files = SweepFiles(Path(snakemake.output.report).parent)
    provenance = provenance_of(**options.provenance_inputs(options.jobs))
    render_report(snakemake.wildcards.sweep, files, Path(options.artifacts), provenance)
