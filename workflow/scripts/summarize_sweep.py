"""Means, intervals and comparisons of a sweep's points. Called by Snakemake."""

from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.analysis import summarize_sweep

    summarize_sweep(
        Path(snakemake.input.points),
        Path(snakemake.input.scores),
        {Path(path).parent.name: Path(path) for path in snakemake.input.histories},
        Path(snakemake.output.summary),
        Path(snakemake.output.comparisons),
        seed=0,
    )
