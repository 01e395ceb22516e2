"""Scores one point on a test split. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.experiment.options import PointOptions
    from separation.files.atomic import write_json
    from separation.files.layout import EvaluationFolder, PointFolder
    from separation.files.yaml_reader import read_yaml
    from separation.files.yaml_writer import write_yaml
    from separation.machine.gpu_leases import gpus_for
    from separation.planning.point_config import evaluation_config
    from separation.planning.run_options import RunOptions
    from separation.tracking.tracker_processes import run_trackers
    from separation.training.events import EventLog

    point, evaluation = snakemake.wildcards.point, snakemake.wildcards.evaluation
    options = RunOptions.of(snakemake.config)
    spec = json.loads(snakemake.params.spec)
    checkpoint = Path(snakemake.input.checkpoint)
    folder = PointFolder(checkpoint.parents[1])
    results = EvaluationFolder(Path(snakemake.output.scores).parent)
    config = evaluation_config(read_yaml(folder.config).value, spec, options.jobs.point(point))
    point_options = PointOptions.read(config)
    with (
        gpus_for(snakemake, point_options.training.device) as device,
        run_trackers(folder, options.tracking),
    ):
        from separation.analysis.sweep_tables import mean_scores
        from separation.evaluation.evaluate import evaluate_point
        from separation.tracking.tensorboard_links import write_scores

        evaluate_point(
            point_options,
            point=point,
            evaluation=evaluation,
            checkpoint=checkpoint,
            test=options.jobs.evaluations[evaluation],
            scores=results.scores,
            state=folder.evaluation_state(evaluation),
            threads=snakemake.threads,
            device=device,
        )
        means = mean_scores(results.scores)
        EventLog(folder.events).write("scores", evaluation, **means)
        write_scores(folder, evaluation, means["metrics"], point_options.training.num_epochs)
    write_yaml(snakemake.output.config, config)
    write_json(results.spec, spec)
