"""Joins the scores of a sweep's points and baselines. Called by Snakemake."""

import json
from pathlib import Path

from separation.machine.snakemake_job import job

with job(snakemake):
    from separation.analysis.summarize import collect_scores
    from separation.files.atomic import write_json
    from separation.files.layout import SweepFiles
    from separation.planning.run_options import RunOptions
    from separation.planning.sweep_names import record_name

    files = SweepFiles(Path(snakemake.output.points).parent)
    scores = [Path(path) for path in [*snakemake.input.scores, *snakemake.input.baselines, *snakemake.input.systems]]
    validations = [Path(path) for path in snakemake.input.validations]
    spec = json.loads(snakemake.params.spec)
    # a list of points where there is nothing else
    spec = spec if isinstance(spec, dict) else {"points": spec, "published": []}
    collect_scores(spec["points"], scores, files, validations)
    if spec["published"]:
        write_json(files.published, spec["published"])
    else:
        files.published.unlink(missing_ok=True)
    record_name(files.path, RunOptions.of(snakemake.config).sweep_file)
