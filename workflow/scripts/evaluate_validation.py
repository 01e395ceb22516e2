"""Scores one point on the validation split, to choose among points. Called by Snakemake."""

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

    point, evaluation = snakemake.wildcards.point, snakemake.wildcards.evaluation
    options = RunOptions.of(snakemake.config)
    spec = json.loads(snakemake.params.spec)
    checkpoint = Path(snakemake.input.checkpoint)
    folder = PointFolder(checkpoint.parents[1])
    results = EvaluationFolder(Path(snakemake.output.scores).parent)
    config = evaluation_config(read_yaml(folder.config).value, spec, options.jobs.point(point))
    point_options = PointOptions.read(config)
    with gpus_for(snakemake, point_options.training.device) as device:
        from separation.evaluation.evaluate import evaluate_point

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
            audio=False,
        )
    write_yaml(snakemake.output.config, config)
    write_json(results.spec, spec)
