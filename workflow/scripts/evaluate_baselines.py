"""Scores the mixture, the fixed mask and the oracles on a test split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.evaluation.baselines import evaluate_baselines
    from separation.experiment.options import DatasetOptions
    from separation.planning.run_options import RunOptions

    baselines = snakemake.wildcards.baselines
    spec = json.loads(snakemake.params.spec)
    splits = RunOptions.of(snakemake.config).jobs.baselines[baselines]
    evaluate_baselines(
        DatasetOptions.read(spec["dataset_config"]),
        spec["testers"],
        train=splits["train"],
        test=splits["test"],
        extras=splits["extras"],
        scores=Path(snakemake.output.scores),
        evaluation=baselines,
        threads=snakemake.threads,
    )
