"""Joins the scores of a sweep's points and baselines. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import collect_scores
    from separation.files.layout import SweepFiles
    from separation.planning.run_options import RunOptions
    from separation.planning.sweep_names import record_name

    files = SweepFiles(Path(snakemake.output.points).parent)
    scores = [Path(path) for path in [*snakemake.input.scores, *snakemake.input.baselines]]
    collect_scores(json.loads(snakemake.params.spec), scores, files)
    record_name(files.path, RunOptions.of(snakemake.config).sweep_file)
