"""Scores the estimates of another program on a test split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.evaluation.systems import score_system
    from separation.experiment.options import DatasetOptions
    from separation.planning.run_options import RunOptions

    system = snakemake.wildcards.system
    spec = json.loads(snakemake.params.spec)
    options = RunOptions.of(snakemake.config).jobs.systems[system]
    score_system(
        DatasetOptions.read(options["dataset_config"]),
        spec["testers"],
        test=options["test"],
        folder=Path(options["folder"]),
        scores=Path(snakemake.output.scores),
        evaluation=system,
        extras=options["extras"],
        threads=snakemake.threads,
        **spec["system"],
    )
