"""Sends new data of a sweep's points to a tracker. Called by Snakemake."""

import atexit
import json
import os
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.sweep_tables import read_points
    from separation.errors import UserError
    from separation.files.atomic import write_json
    from separation.files.layout import PointFolder
    from separation.planning.run_options import RunOptions
    from separation.tracking.payload import sweep_figures
    from separation.tracking.sync import sync_points

    options, tracker = RunOptions.of(snakemake.config), json.loads(snakemake.params.spec)["tracker"]
    points = dict.fromkeys(read_points(Path(snakemake.input.points))["point"])
    try:
        pages = sync_points(
            tracker,
            options.tracking[tracker],
            [PointFolder(Path(options.artifacts) / point) for point in points],
            sweep_figures(snakemake.wildcards.sweep, Path(snakemake.input.figures).parent),
        )
    except UserError:
        # runs before the tracker's own exit handler, which would wait for its server and retry
        atexit.register(os._exit, 1)
        raise
    write_json(snakemake.output.receipt, pages)
