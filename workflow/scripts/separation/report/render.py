"""The report of a sweep: one HTML file with charts, tables and audio that opens from disk."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import jinja2
import vl_convert
from markupsafe import Markup

from separation.analysis.costs import exact_duration
from separation.analysis.statistics import MIN_MEMBERS, MIN_PAIRS
from separation.analysis.sweep_tables import metric_columns, unit_of
from separation.experiment.metric_definitions import explain_metrics
from separation.files.atomic import read_json, write_text
from separation.files.layout import BENCHMARKS, EvaluationFolder, PointFolder, SweepFiles
from separation.files.score_table import BASELINES, ORACLE
from separation.report import charts, tables, verdict
from separation.report.figures import SECTIONS, gather_sweep, vega_lite_version
from separation.report.players import read_items

# Larger tables are not embedded in the report
MAX_BYTES_OF_A_TABLE = 2_000_000
TEMPLATES = Path(__file__).resolve().parents[3] / "report"


def render_report(
    title: str,
    files: SweepFiles,
    artifacts: Path,
    provenance: Mapping,
    benchmarks: Path = BENCHMARKS,
    *,
    kind: str = "Sweep report",
    notices: Sequence[str] = (),
) -> None:
    """Writes the report of a sweep as one HTML file that needs no network and no other file.

    Args:
        title: Heading of the report: the sweep's name.
        files: Sweep with the tables of `separation.analysis.summarize` and the figures of
            `separation.report.figures.plot_sweep`; the report is written to `files.report`. Same input, same bytes.
        artifacts: Folder of the points, with their histories and the audio that was kept; the best network is played.
        provenance: How the results were made, for example `date`, `git commit`, `versions`, `datasets`, `licences`,
            `config` (text); values are strings, lists or mappings and are shown in their order. `notes` go to the top.
        benchmarks: Folder of job costs; see `separation.analysis.costs.read_costs`.
        kind: Line above the title.
        notices: Reasons for doubt besides those that follow from the numbers.
    """
    data = gather_sweep(files, artifacts, benchmarks)
    metrics = metric_columns(data.scores)
    optional = [path for path in (files.groups, files.conditions) if path.exists()]
    downloads = [files.summary, files.comparisons, files.points, *optional]
    found = verdict.describe_sweep(data)
    found.cautions[:0] = notices
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            sweep=title,
            kind=kind,
            verdict=found,
            losses=tables.best_of_each_loss(data),
            metric=data.metric,
            unit=data.unit,
            published=tables.published(data),
            across=data.across,
            criterion=data.criterion,
            extreme=data.extreme,
            oracle=BASELINES[ORACLE].lower(),
            table=tables.table_of_points(data, metrics),
            figures=read_figures(files),
            compared=tables.comparisons(data),
            effects=tables.effects(data),
            conditions=tables.condition_tables(data),
            costs=tables.costs(data),
            settings=tables.settings(data),
            member=unit_of(data.scores),
            min_members=MIN_MEMBERS,
            min_pairs=MIN_PAIRS,
            items=read_items(_evaluations_with_audio(data, artifacts)),
            notes=provenance.get("notes"),
            provenance={name: value for name, value in provenance.items() if name != "notes" and (value or value == 0)},
            metrics=explain_metrics(metrics, data.definitions),
            improvements=[name for name in metrics if name.endswith("i") and name != "SI-SDRi"],
            downloads=[
                (path.name, data_uri(path)) for path in downloads if path.stat().st_size <= MAX_BYTES_OF_A_TABLE
            ],
            style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup((TEMPLATES / "report.js").read_text(encoding="utf-8")),
            vega=Markup(vega_bundle()),
        )
    )
    write_text(files.report, page)


def environment() -> jinja2.Environment:
    """The environment of report templates; text is escaped."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {
        "db": verdict.decibels,
        "interval": _interval,
        "short": _short,
        "p": verdict.p_in_words,
        "duration": exact_duration,
    }
    templates.filters |= {"share": _share}
    return templates


@cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that can be embedded in a page."""
    # "</script" would end the script element; in strings and patterns the backslash changes nothing
    return vl_convert.javascript_bundle(vl_version=vega_lite_version()).replace("</script", "<\\/script")


def json_script(value: object) -> Markup:
    """JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def data_uri(path: Path) -> str:
    """A CSV as a data URI."""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(path.read_bytes()).decode()


def read_figures(files: SweepFiles) -> dict[str, list[dict]]:
    """The figures by section, each with its specification as JSON."""
    sections: dict[str, list[dict]] = {name: [] for name in SECTIONS}
    for figure in read_json(files.figure_index):
        specification = read_json(files.figures / f"{figure['name']}.vl.json")
        # The page has its own light and dark style, and must not contain any address to load
        specification = {name: value for name, value in specification.items() if name not in ("$schema", "config")}
        entry = figure | {"json": json_script(specification), "description": specification.get("description", "")}
        sections[figure["section"]].append(entry | {"height": specification.get("height", 280)})
    return sections


def _interval(row: Mapping, sign: bool = False) -> str:
    return verdict.interval(row["low"], row["high"], sign)


def _evaluations_with_audio(data: charts.SweepData, artifacts: Path) -> list[EvaluationFolder]:
    """The best point's evaluation that the verdict is about; its other evaluations if that one kept no audio."""
    for best in data.rows[data.rows["best"]].head(1).itertuples():
        names = data.points.loc[data.points["point"] == best.point, "evaluation"]
        evaluations = [PointFolder(artifacts / best.point).evaluation(name) for name in names]
        with_audio = [evaluation for evaluation in evaluations if evaluation.estimates.is_dir()]
        return [evaluation for evaluation in with_audio if evaluation.id == best.evaluation] or with_audio
    return []


def _short(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %".replace("-", "−") if math.isfinite(value) else "–"
