"""Draws the figures of a sweep. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.files.layout import histories_of
    from separation.report.figures import plot_sweep

    plot_sweep(
        Path(snakemake.input.points),
        Path(snakemake.input.scores),
        Path(snakemake.input.summary),
        histories_of(Path(snakemake.input.points), Path(snakemake.config["run_options"]["artifacts"])),
        Path(snakemake.output.manifest).parent,
    )
