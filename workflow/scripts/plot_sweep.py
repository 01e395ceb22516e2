"""Draws the figures of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import SweepFiles
    from separation.report.figures import plot_sweep

    plot_sweep(SweepFiles(Path(snakemake.input.summary).parent), Path(snakemake.config["run_options"]["artifacts"]))
