"""Means, intervals and comparisons of a sweep's points. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import summarize_sweep
    from separation.files.layout import SweepFiles
    from separation.publishing.results_table import table_of_sweep
    from separation.publishing.sheet_table import write_csv

    files, run_options = SweepFiles(Path(snakemake.output.summary).parent), snakemake.config["run_options"]
    summarize_sweep(files, Path(run_options["artifacts"]))
    write_csv(table_of_sweep(files.points, files.scores, run_options), files.sheet)
