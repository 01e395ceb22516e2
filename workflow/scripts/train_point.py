"""Trains one point. Called by Snakemake."""

import json
from pathlib import Path

from separation.jobs import job

with job(snakemake):
    from separation.files import write_json
    from separation.plan import SPEC_FILE
    from separation.resolved import complete_config, options_of
    from separation.yaml_writer import write_yaml

    point = snakemake.wildcards.point
    options = options_of(snakemake.config["run_options"], point)
    folder = Path(snakemake.output.config).parent
    spec = json.loads(snakemake.params.spec)
    config = complete_config(spec, options, point, str(folder))
    write_yaml(snakemake.output.config, config)
    write_json(folder / SPEC_FILE, spec)

    from separation.distributed import train_together
    from separation.training import train_point

    # its inputs are the caches of both splits where it has caches, else the mixtures
    manifests = dict(zip(("train", "val"), map(Path, snakemake.input), strict=False))
    caches = manifests if config["dataset_config"]["cache"] else None

    arguments = {
        "folder": folder,
        "splits": {key: options["readers"][key] for key in ("train", "val")},
        "caches": caches,
        "device": config["train_config"]["device"] if snakemake.resources.get("gpu", 0) else "cpu",
        "threads": snakemake.threads,
    }
    count = config["train_config"]["num_gpus"]
    if count > 1:
        train_together(config, count=count, log=Path(str(snakemake.log[0])), **arguments)
    else:
        train_point(config, **arguments)
