"""Scores one point on a test split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.commands.plan import EVALUATION_SPEC_FILE
    from separation.files.atomic import write_json
    from separation.files.yaml_reader import read_yaml
    from separation.files.yaml_writer import write_yaml
    from separation.machine.gpu_leases import gpus_for
    from separation.planning.run_options import options_of
    from separation.tracking.beside_job import trackers_beside
    from separation.training.events import EVENTS_FILE, EventLog

    point, evaluation = snakemake.wildcards.point, snakemake.wildcards.evaluation
    options = options_of(snakemake.config["run_options"], point)
    spec = json.loads(snakemake.params.spec)
    checkpoint = Path(snakemake.input.checkpoint)
    config = read_yaml(checkpoint.parents[1] / "config.yml").value
    config["algorithm_config"] = {**options["algorithm_config"], **spec["algorithm_config"]}
    config["test_config"] = {**options["test_config"], **spec["test_config"]}
    with (
        gpus_for(snakemake, config["train_config"]["device"]) as device,
        trackers_beside(checkpoint.parents[1], snakemake.config["run_options"]["tracking"]),
    ):
        from separation.analysis.sweep_tables import mean_scores
        from separation.evaluation.evaluate import evaluate_point
        from separation.tracking.tensorboard_links import write_scores

        evaluate_point(
            config,
            point=point,
            evaluation=evaluation,
            checkpoint=checkpoint,
            test=snakemake.config["run_options"]["evaluations"][evaluation],
            scores=Path(snakemake.output.scores),
            state=checkpoint.parents[1] / "state" / "evaluations" / evaluation,
            threads=snakemake.threads,
            device=device,
        )
        told = mean_scores(Path(snakemake.output.scores))
        EventLog(checkpoint.parents[1] / EVENTS_FILE).write("scores", evaluation, **told)
        write_scores(checkpoint.parents[1], evaluation, told["metrics"], config["train_config"]["num_epochs"])
    write_yaml(snakemake.output.config, config)
    write_json(Path(snakemake.output.scores).with_name(EVALUATION_SPEC_FILE), spec)
