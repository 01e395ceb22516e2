"""Means, intervals and comparisons of a sweep's points. Called by Snakemake."""

from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import summarize_sweep
    from separation.files.layout import histories_of
    from separation.publishing.results_table import table_of_sweep
    from separation.publishing.sheet_table import write_csv

    summarize_sweep(
        Path(snakemake.input.points),
        Path(snakemake.input.scores),
        histories_of(Path(snakemake.input.points), Path(snakemake.config["run_options"]["artifacts"])),
        Path(snakemake.output.summary),
        Path(snakemake.output.comparisons),
        Path(snakemake.output.groups),
        Path(snakemake.output.conditions),
        seed=0,
    )
    table = table_of_sweep(Path(snakemake.input.points), Path(snakemake.input.scores), snakemake.config["run_options"])
    write_csv(table, Path(snakemake.output.sheet))
