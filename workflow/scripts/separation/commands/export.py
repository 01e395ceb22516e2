"""Exports a trained point as one folder that can be given away: `make export model=<point>`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from separation.analysis.sweep_tables import mean_scores
from separation.commands.trained_point import EXPORTED, TrainedPoint, find_point
from separation.errors import UserError
from separation.experiment.config import default_config, load_settings
from separation.experiment.metric_descriptions import DESCRIPTIONS
from separation.files.atomic import sha256_of, write_json, write_text
from separation.files.yaml_reader import read_yaml
from separation.planning.expansion import load_workflow
from separation.planning.run_options import provenance_inputs
from separation.report.provenance import provenance_of

README, LICENCES, METRICS, SCORES = "README.md", "LICENCES.md", "metrics.json", "scores.parquet"


def export_point(point: TrainedPoint, folder: Path, *, licence: str = "", environment: Mapping[str, str]) -> None:
    """Writes a folder with the network, its config, its scores, a model card, and the licences of what it learned from.

    Args:
        point: see `trained.find_point`.
        folder: where to; what another export left there is replaced.
        licence: of the weights, in the owner's words.
        environment: variables that the config may name.

    Files: `model.pth` (nussl.ml.SeparationModel.load and nussl's deep algorithms read it without this project),
    `config.yml`, `metrics.json` (means by dataset, split and source), `scores.parquet` where the point was evaluated,
    `README.md` (the card), `LICENCES.md`.

    Raises:
        UserError: the folder holds something that is no export, or the point's config is not valid.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / EXPORTED).is_file():
        raise UserError("expected a new folder, or that of another export", file=folder)
    workflow = load_workflow(default_config() | {"sweep": str(point.folder / "config.yml")}, environment)
    made = provenance_of(**provenance_inputs(workflow.run_options, workflow.job_table))
    recipes = {name: _licence_of(name) for name in dict.fromkeys(made["datasets"].values())}
    tables = sorted(point.folder.glob(f"evaluations/*/{SCORES}"))
    metrics = [mean_scores(table) for table in tables]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(point.checkpoint, folder / EXPORTED)
    shutil.copyfile(point.folder / "config.yml", folder / "config.yml")
    write_json(folder / METRICS, {"point": point.name, "sha256": sha256_of(point.checkpoint), "scores": metrics})
    (folder / SCORES).unlink(missing_ok=True)
    if tables:
        pandas.concat([pandas.read_parquet(table) for table in tables]).to_parquet(folder / SCORES, index=False)
    write_text(folder / LICENCES, _licences(made, recipes, licence))
    write_text(folder / README, _card(point, made, metrics, licence))


def _licence_of(dataset: str) -> str:
    """What a recipe says about the audio's licence; "" where it says nothing, or is gone."""
    path = Path("config/datasets") / f"{dataset}.yml"
    return str((read_yaml(path).value.get("source") or {}).get("licence") or "") if path.is_file() else ""


def _licences(made: Mapping[str, Any], recipes: Mapping[str, str], licence: str) -> str:
    lines = ["# Licences", "", "## The weights", "", licence or "Not stated by whoever exported them.", ""]
    lines += ["## What they were trained on", ""]
    for name, text in recipes.items():
        lines += [f"### {name}", "", text.strip() or "The recipe names no licence; see the files below.", ""]
    for name, text in made["licences"].items():
        lines += [f"### {name}", "", "```", text.strip(), "```", ""]
    return "\n".join(lines)


def _card(point: TrainedPoint, made: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], licence: str) -> str:
    config = point.config
    dataset, algorithm = config["dataset_config"], config["algorithm_config"]
    args = {key: value for key, value in (algorithm.get("args") or {}).items()}
    lines = [f"# {point.name}", "", str(config["info"].get("notes") or "A source separation network."), ""]
    lines += ["| | |", "|---|---|"]
    facts = {
        "separates": f"`nussl.separation.deep.{algorithm['class']}`",
        "audio": f"{dataset['sample_rate']} Hz, {dataset['num_channels']} channel(s)",
        "STFT": f"window {dataset['n_fft']}, hop {dataset['hop_length']}, {dataset['window_type']}",
        "trained on": ", ".join(made["datasets"].values()) or "files named in config.yml",
        "exported at commit": made["git_commit"] or "unknown",
        "exported with": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
        "licence of the weights": licence or "not stated",
    }
    lines += [f"| {name} | {value} |" for name, value in facts.items()] + [""]
    lines += ["## Scores", ""]
    if not metrics:
        lines += ["Not evaluated.", ""]
    for told in metrics:
        names = list(told["metrics"])
        lines += [f"{told['dataset']}, {told['split']}: means over {told['count']} items", ""]
        lines += ["| source | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        rows = {"all": told["metrics"], **told["sources"]}
        for name, row in rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in names) + " |")
        lines += ["", *[f"- {key}: {DESCRIPTIONS[key].definition}" for key in names if key in DESCRIPTIONS], ""]
    shown = ", ".join(f"{key}={value!r}" for key, value in args.items() if key not in ("model_path", "device"))
    lines += [
        "## Use", "", "```python",
        "# nussl 1.1.9; on new libraries `from separation.nussl_compat import nussl`, which mends it",
        "import nussl", "",
        'mixture = nussl.AudioSignal("song.wav")',
        f'separator = nussl.separation.deep.{algorithm["class"]}(mixture, {shown + ", " if shown else ""}'
        f'model_path="{EXPORTED}")',
        "estimates = separator()", "```", "",
        "The checkpoint holds a pickle: load it only if you trust where it came from.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make export`."""
    parser = argparse.ArgumentParser(prog="export", description="Exports a trained point as one folder.")
    parser.add_argument("--model", required=True, help="a point's id or folder")
    parser.add_argument("--output", type=Path, default=None, help="a folder; results/exports/<point> where left out")
    parser.add_argument("--licence", default="", help="of the weights, such as CC-BY-4.0")
    asked = parser.parse_args(arguments)
    try:
        point = find_point(asked.model, load_settings(default_config(), os.environ).artifacts)
        folder = asked.output or Path("results/exports") / point.name
        export_point(point, folder, licence=asked.licence, environment=os.environ)
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
