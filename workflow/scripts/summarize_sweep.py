"""Means, intervals and comparisons of a sweep's points. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import summarize_sweep
    from separation.files.layout import SweepFiles
    from separation.planning.run_options import RunOptions
    from separation.publishing.results_table import table_of_sweep
    from separation.publishing.sheet_table import write_csv

    files, options = SweepFiles(Path(snakemake.output.summary).parent), RunOptions.of(snakemake.config)
    summarize_sweep(files, Path(options.artifacts))
    write_csv(table_of_sweep(files.points, files.scores, options), files.sheet)
