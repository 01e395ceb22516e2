"""Renders the report of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import estimates_of, histories_of
    from separation.report.provenance import provenance_of
    from separation.report.render import render_report

    run_options = snakemake.config["run_options"]
    points, artifacts = Path(snakemake.input.points), Path(run_options["artifacts"])
    render_report(
        snakemake.wildcards.sweep,
        points,
        Path(snakemake.input.scores),
        Path(snakemake.input.summary),
        Path(snakemake.input.comparisons),
        Path(snakemake.input.figures).parent,
        histories_of(points, artifacts),
        estimates_of(points, artifacts),
        provenance_of(run_options),
        Path(snakemake.output.report),
    )
