"""The jobs of a workflow as calls of the library in this process, for tests that need results and no programs.

All functions work in the current folder, a clone of the repository.
"""

import json
from pathlib import Path

from separation.analysis.summarize import collect_scores, summarize_sweep
from separation.evaluation.baselines import evaluate_baselines
from separation.evaluation.evaluate import evaluate_point
from separation.experiment.config import default_config
from separation.experiment.options import DatasetOptions, PointOptions
from separation.features.cache import populate_cache
from separation.files import layout
from separation.files.atomic import write_json
from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml
from separation.planning.expansion import load_workflow
from separation.planning.point_config import complete_config, evaluation_config
from separation.planning.sweep_names import record_name
from separation.planning.workflow import Workflow
from separation.report.figures import plot_sweep
from separation.report.provenance import provenance_of
from separation.report.render import render_report
from separation.training.loop import train_point


def plan(sweep: str, overrides: str = "", **directories: str) -> Workflow:
    """The workflow of an experiment file, with overrides as in `set=`."""
    return load_workflow(default_config() | {"sweep": sweep, "set": overrides}, directories)


def train(workflow: Workflow) -> None:
    """Fills the caches of the points without a checkpoint, and trains these points."""
    artifacts, cache = workflow.settings.artifacts, workflow.settings.cache
    for training in workflow.trainings.values():
        folder = layout.PointFolder(artifacts / training.id)
        if folder.best_checkpoint.exists():
            continue
        manifests = {}
        for key in ("train", "val") if training.caches else ():
            name = training.caches[key], training.splits[key].split
            manifests[key] = layout.cache_manifest(cache, *name)
            spec = json.loads(workflow.caches[name][0].spec)
            populate_cache(spec, workflow.job_table.caches["/".join(name)], manifests[key])
        settings, spec = workflow.job_table.point(training.id), json.loads(training.spec)
        config = complete_config(spec, settings, training.id, str(folder.path))
        write_yaml(folder.config, config)
        write_json(folder.spec, spec)
        train_point(PointOptions.read(config), folder=folder.path, splits=settings["splits"], caches=manifests or None)


def evaluate(workflow: Workflow) -> list[Path]:
    """Makes the missing scores of trained points, and returns the tables of all points."""
    tables = []
    for (point, evaluation), (job, _) in workflow.evaluations.items():
        folder, spec = layout.PointFolder(workflow.settings.artifacts / point), json.loads(job.spec)
        results = folder.evaluation(evaluation)
        tables.append(results.scores)
        if results.scores.exists():
            continue
        config = evaluation_config(read_yaml(folder.config).value, spec, workflow.job_table.point(point))
        evaluate_point(
            PointOptions.read(config),
            point=point,
            evaluation=evaluation,
            checkpoint=folder.best_checkpoint,
            test=workflow.job_table.evaluations[evaluation],
            scores=results.scores,
        )
        write_yaml(results.config, config)
        write_json(results.spec, spec)
    return tables


def summarize(workflow: Workflow) -> None:
    """Writes the tables of the sweep, from existing or new scores of its points and baselines."""
    tables = evaluate(workflow)
    for name, (job, _, _) in workflow.baselines.items():
        scores, spec = layout.baseline_scores(workflow.settings.artifacts, name), json.loads(job.spec)
        tables.append(scores)
        if not scores.exists():
            splits = workflow.job_table.baselines[name]
            options = DatasetOptions.read(spec["dataset_config"])
            evaluate_baselines(options, spec["testers"], **splits, scores=scores, evaluation=name)
    files = layout.SweepFiles.of(workflow.experiment.name)
    collect_scores(workflow.table(), tables, files)
    record_name(files.path, workflow.run_options.sweep_file)
    summarize_sweep(files, workflow.settings.artifacts)


def report(workflow: Workflow) -> Path:
    """Draws the figures of a summarized sweep, and renders its report."""
    name, artifacts = workflow.experiment.name, workflow.settings.artifacts
    files = layout.SweepFiles.of(name)
    plot_sweep(files, artifacts)
    provenance = provenance_of(**workflow.run_options.provenance_inputs(workflow.job_table))
    render_report(name, files, artifacts, provenance)
    return files.report
