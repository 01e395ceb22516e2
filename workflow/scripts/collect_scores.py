"""Joins the scores of a sweep's points and baselines. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import collect_scores
    from separation.planning.sweep_names import record_name

    points_csv = Path(snakemake.output.points)
    collect_scores(
        json.loads(snakemake.params.spec),
        [Path(path) for path in [*snakemake.input.scores, *snakemake.input.baselines]],
        points_csv,
        Path(snakemake.output.scores),
    )
    record_name(points_csv.parent, snakemake.config["run_options"]["sweep_file"])
