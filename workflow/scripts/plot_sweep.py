"""Draws the figures of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import SweepFiles
    from separation.planning.run_options import RunOptions
    from separation.report.figures import plot_sweep

    plot_sweep(SweepFiles(Path(snakemake.input.summary).parent), Path(RunOptions.of(snakemake.config).artifacts))
