"""Trains one point. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake, once=True):
    from separation.experiment.options import PointOptions
    from separation.files.atomic import write_json
    from separation.files.layout import PointFolder
    from separation.files.yaml_writer import write_yaml
    from separation.machine.gpu_leases import gpus_for
    from separation.planning.point_config import complete_config
    from separation.planning.run_options import RunOptions
    from separation.training.events import EventLog

    point, options = snakemake.wildcards.point, RunOptions.of(snakemake.config)
    settings, label = options.jobs.point(point), options.jobs.labels[point]
    folder = PointFolder(Path(snakemake.output.config).parent)
    spec = json.loads(snakemake.params.spec)
    config = complete_config(spec, settings, point, str(folder.path))
    write_yaml(snakemake.output.config, config)
    write_json(folder.spec, spec)
    point_options = PointOptions.read(config)
    about = {"sweep": options.sweep, "project": point_options.project_name, "notes": point_options.notes}
    EventLog(folder.events).write("point", **label, **about)

    from separation.tracking.tracker_processes import run_trackers

    # the inputs are the caches of both splits, or the mixtures if the point has no cache
    manifests = dict(zip(("train", "val"), map(Path, snakemake.input), strict=False))
    caches = manifests if point_options.dataset.cache else None

    count = point_options.training.num_gpus
    # the trackers' libraries load at the same time as torch
    with (
        gpus_for(snakemake, point_options.training.device, count) as device,
        run_trackers(folder, options.tracking),
    ):
        from separation.tracking.tensorboard_links import link_run, write_hparams
        from separation.training.launch import train_together
        from separation.training.loop import train_point

        write_hparams(folder, label["swept"])
        link_run(folder)

        arguments = {
            "folder": folder.path,
            "splits": {key: settings["splits"][key] for key in ("train", "val")},
            "caches": caches,
            "device": device,
            "threads": snakemake.threads,
        }
        if count > 1:
            train_together(point_options, count=count, log=Path(str(snakemake.log[0])), **arguments)
        else:
            train_point(point_options, **arguments)

    # if another workflow was interrupted while it waited for this point, Snakemake may have deleted the file there
    if not Path(snakemake.output.config).exists():
        write_yaml(snakemake.output.config, config)
