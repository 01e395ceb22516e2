"""Renders the report of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import SweepFiles
    from separation.report.provenance import provenance_of
    from separation.report.render import render_report

    run_options = snakemake.config["run_options"]
    files = SweepFiles(Path(snakemake.output.report).parent)
    render_report(snakemake.wildcards.sweep, files, Path(run_options["artifacts"]), provenance_of(run_options))
