"""Renders the report of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.provenance import provenance_of
    from separation.report import render_report

    estimates = {}
    for path in map(Path, snakemake.input.evaluations):
        folder = path.parent / "estimates"
        if folder.is_dir():
            estimates.setdefault(path.parents[2].name, []).append(folder)
    render_report(
        snakemake.wildcards.sweep,
        Path(snakemake.input.points),
        Path(snakemake.input.scores),
        Path(snakemake.input.summary),
        Path(snakemake.input.comparisons),
        Path(snakemake.input.figures).parent,
        {Path(path).parent.name: Path(path) for path in snakemake.input.histories},
        estimates,
        provenance_of(snakemake.config["run_options"]),
        Path(snakemake.output.report),
    )
