"""Export of a trained point as one folder to share: `make export model=<point>`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from separation.analysis.sweep_tables import mean_scores
from separation.commands.network_export import has_own_class, write_network
from separation.commands.trained_point import TrainedPoint, find_point
from separation.errors import UserError
from separation.experiment.config import default_config, load_settings
from separation.experiment.metric_definitions import METRIC_DEFINITIONS
from separation.files.atomic import sha256_of, write_json, write_text
from separation.files.layout import ExportFolder, PointFolder
from separation.files.yaml_reader import read_yaml
from separation.planning.expansion import load_workflow
from separation.report.provenance import provenance_of


def export_point(
    point: TrainedPoint, export: ExportFolder, *, licence: str = "", environment: Mapping[str, str]
) -> None:
    """Writes a folder with the network, its config and scores, a model card, and the licences of its training data.

    nussl.ml.SeparationModel.load and nussl's deep algorithms load a SeparationModel without this project. A network
    with a class of its own is written as safetensors besides, with the lines that load it. The scores are left out if
    the point was not evaluated.

    Args:
        point: Trained point, see `trained_point.find_point`.
        export: Folder to write; replaces an earlier export.
        licence: Licence of the weights, in the owner's words.
        environment: Environment variables that the config may use.

    Raises:
        UserError: The folder holds something else than an export, or the point's config is not valid.
    """
    if export.path.exists() and any(export.path.iterdir()) and not export.checkpoint.is_file():
        raise UserError("expected a new folder, or one of an earlier export", file=export.path)
    config = PointFolder(point.folder).config
    workflow = load_workflow(default_config() | {"sweep": str(config)}, environment)
    provenance = provenance_of(**workflow.run_options.provenance_inputs(workflow.job_table))
    metrics = [mean_scores(table) for table in point.score_tables]
    export.path.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(point.checkpoint, export.checkpoint)
    shutil.copyfile(config, export.config)
    write_json(export.metrics, {"point": point.name, "sha256": sha256_of(point.checkpoint), "scores": metrics})
    export.scores.unlink(missing_ok=True)
    if point.score_tables:
        scores = pandas.concat([pandas.read_parquet(table) for table in point.score_tables])
        scores.to_parquet(export.scores, index=False)
    use = write_network(point, export) if has_own_class(point) else _use_with_nussl(point)
    write_text(export.licences, _licences(provenance, licence))
    write_text(export.model_card, _model_card(point, provenance, metrics, licence, use))


def _audio_licence(dataset: str) -> str:
    """The licence of the audio in a recipe; empty if the recipe has none, or no longer exists."""
    path = Path("config/datasets") / f"{dataset}.yml"
    return str((read_yaml(path).value.get("source") or {}).get("licence") or "") if path.is_file() else ""


def _licences(provenance: Mapping[str, Any], licence: str) -> str:
    lines = ["# Licences", "", "## Weights", "", licence or "Not stated.", ""]
    lines += ["## Training data", ""]
    for name in dict.fromkeys(provenance["datasets"].values()):
        text = _audio_licence(name).strip()
        lines += [f"### {name}", "", text or "The recipe states no licence; see the files below.", ""]
    for name, text in provenance["licences"].items():
        lines += [f"### {name}", "", "```", text.strip(), "```", ""]
    return "\n".join(lines)


def _model_card(
    point: TrainedPoint,
    provenance: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    licence: str,
    use: Sequence[str],
) -> str:
    dataset, evaluation = point.options.dataset, point.options.evaluation
    # what the Hugging Face Hub reads
    lines = ["---", *([f"license: {licence.lower()}"] if _is_identifier(licence) else [])]
    lines += ["pipeline_tag: audio-to-audio", "tags: [source-separation]", "---", ""]
    lines += [f"# {point.name}", "", point.options.notes or "A source separation network.", ""]
    lines += ["| | |", "|---|---|"]
    own = has_own_class(point)
    facts = {
        "separates": f"`{point.options.network.class_}`" if own else f"`nussl.separation.deep.{evaluation.class_}`",
        "audio": f"{dataset.sample_rate} Hz, {dataset.num_channels} channel(s)",
        "STFT": f"window {dataset.n_fft}, hop {dataset.hop_length}, {dataset.window_type}",
        "trained on": ", ".join(provenance["datasets"].values()) or "the files in config.yml",
        "exported at commit": provenance["git_commit"] or "unknown",
        "exported with": ", ".join(f"{name} {version}" for name, version in provenance["versions"].items()),
        "licence of the weights": licence or "not stated",
    }
    lines += [f"| {name} | {value} |" for name, value in facts.items()] + [""]
    lines += ["## Scores", "", *(_score_tables(metrics) or ["Not evaluated.", ""])]
    pickle = f"{ExportFolder(Path()).checkpoint} contains a pickle: load it only if you trust its origin."
    lines += ["## Use", "", "```python", *use, "```", "", pickle, ""]
    return "\n".join(lines)


def _use_with_nussl(point: TrainedPoint) -> list[str]:
    """Lines of Python that separate with nussl."""
    evaluation = point.options.evaluation
    shown = ", ".join(
        f"{key}={value!r}" for key, value in evaluation.args.items() if key not in ("model_path", "device")
    )
    return [
        "# nussl 1.1.9; with newer dependencies use `from separation.nussl_compat import nussl`",
        "import nussl", "",
        'mixture = nussl.AudioSignal("song.wav")',
        f'separator = nussl.separation.deep.{evaluation.class_}(mixture, {shown + ", " if shown else ""}'
        f'model_path="{ExportFolder(Path()).checkpoint}")',
        "estimates = separator()",
    ]  # fmt: skip


def _is_identifier(licence: str) -> bool:
    """Whether the owner's words can be an identifier of a licence, such as CC-BY-4.0."""
    return re.fullmatch(r"[A-Za-z0-9.+-]+", licence) is not None


def _score_tables(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table of means per evaluation, with the definitions of its metrics, as lines of Markdown."""
    lines = []
    for means in metrics:
        names = list(means["metrics"])
        lines += [f"{means['dataset']}, {means['split']}: means over {means['count']} items", ""]
        lines += ["| source | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        rows = {"all": means["metrics"], **means["sources"]}
        for name, row in rows.items():
            lines.append(f"| {name} | " + " | ".join(f"{row[key]:.2f}" for key in names) + " |")
        lines += [
            "",
            *[f"- {key}: {METRIC_DEFINITIONS[key].definition}" for key in names if key in METRIC_DEFINITIONS],
            "",
        ]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `make export`."""
    parser = argparse.ArgumentParser(prog="export", description="Export a trained point as one folder.")
    parser.add_argument("--model", required=True, help="a point's id or folder")
    parser.add_argument("--output", type=Path, default=None, help="folder to write; default: results/exports/<point>")
    parser.add_argument("--licence", default="", help="licence of the weights, such as CC-BY-4.0")
    options = parser.parse_args(arguments)
    try:
        point = find_point(options.model, load_settings(default_config(), os.environ).artifacts)
        export = ExportFolder(options.output) if options.output else ExportFolder.of(point.name)
        export_point(point, export, licence=options.licence, environment=os.environ)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(export.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
