"""Draws the figures of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.figures import plot_sweep

    plot_sweep(
        Path(snakemake.input.points),
        Path(snakemake.input.scores),
        Path(snakemake.input.summary),
        {Path(path).parent.name: Path(path) for path in snakemake.input.histories},
        Path(snakemake.output.manifest).parent,
    )
