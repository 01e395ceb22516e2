"""Writes the results table of a sweep as a workbook. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.planning.run_options import RunOptions
    from separation.publishing.results_table import table_of_sweep
    from separation.publishing.sheet_table import write_workbook

    points, scores = Path(snakemake.input.points), Path(snakemake.input.scores)
    write_workbook(table_of_sweep(points, scores, RunOptions.of(snakemake.config)), Path(snakemake.output.workbook))
