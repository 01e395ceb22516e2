"""Guards: problems of source files, found before mixing and listed in one table."""

from __future__ import annotations

import csv
import io
import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.files.atomic import write_text

logger = logging.getLogger(__name__)

SILENT_PEAK = 10 ** (-60 / 20)  # of full scale
CLIPPED_SHARE = 1e-4
# the same audio in several splits stays in the evaluated one
KEPT_FIRST = {"test": 0, "val": 1}
_ROWS_SHOWN = 200


@dataclass(frozen=True)
class Problem:
    """A problem of a file, and the action: stop, skip or use."""

    path: str
    split: str
    kind: str
    detail: str
    action: str


def find_problems(
    files: Sequence[Mapping[str, Any]], guards: Mapping[str, Any], empty_folders: Mapping[str, str]
) -> list[Problem]:
    """All problems of a source's files, ordered by path.

    Args:
        files: Entries with `path`, `split`, `class`, `song` and the result of file_checks.measure_file.
        guards: Section of a recipe: `action`, `by_problem`, `min_duration` (s), `num_channels`.
        empty_folders: Class of each folder without audio.
    """
    problems: list[Problem] = []

    def add(entry: Mapping[str, Any], kind: str, detail: str) -> None:
        problems.append(Problem(entry["path"], entry["split"], kind, detail, action_of(guards, kind)))

    readable = []
    for entry in files:
        if "unreadable" in entry:
            add(entry, "unreadable", entry["unreadable"])
        elif entry["damaged"]:
            add(entry, "damaged", entry["damaged"])
        else:
            readable.append(entry)
    expected = {key: _expected_value(readable, key, guards) for key in ("num_channels", "sample_rate")}
    for entry in readable:
        duration = entry["frames"] / entry["sample_rate"]
        if entry["peak"] <= SILENT_PEAK:
            add(entry, "silent", f"its peak is {_db(entry['peak'])}")
        if entry["clipped"] > CLIPPED_SHARE:
            add(entry, "clipped", f"{entry['clipped']:.2%} of its samples are at full scale")
        if duration < guards["min_duration"]:
            add(entry, "too_short", f"{duration:.3g} s, mixtures need {guards['min_duration']:g} s")
        for key, kind, unit in (("num_channels", "channels", " channels"), ("sample_rate", "sample_rate", " Hz")):
            if entry[key] != expected[key]:
                add(entry, kind, f"{entry[key]}{unit}, expected {expected[key]}{unit}")
    _add_duplicates([entry for entry in readable if entry["peak"] > SILENT_PEAK], add)
    left_out = {(problem.path, problem.split) for problem in problems if problem.action != "use"}
    action = action_of(guards, "empty_class")
    for split, name in sorted({(entry["split"], entry["class"]) for entry in files}):
        members = [entry for entry in files if (entry["split"], entry["class"]) == (split, name)]
        if all((entry["path"], split) in left_out for entry in members):
            detail = f"none of the {len(members)} files of class {name} in {split} can be used"
            problems.append(Problem(f"{name}/", split, "empty_class", detail, action))
    classes = {entry["class"] for entry in files}
    for folder, name in empty_folders.items():
        if name not in classes:
            problems.append(Problem(f"{folder}/", "", "empty_class", "the folder holds no audio files", action))
    return sorted(problems, key=lambda problem: (problem.path, problem.kind, problem.split))


def action_of(guards: Mapping[str, Any], kind: str) -> str:
    """The action of a recipe for a kind of problem."""
    return (guards.get("by_problem") or {}).get(kind, guards.get("action", "stop"))


def _expected_value(entries: list[Mapping[str, Any]], key: str, guards: Mapping[str, Any]) -> int | None:
    """The expected number of channels, or rate: the most frequent one, the greater one of a tie.

    If mixtures are not mono, the number of channels is theirs.
    """
    if key == "num_channels" and guards["num_channels"] != 1:
        return guards["num_channels"]
    counts = Counter(entry[key] for entry in entries)
    return max(counts, key=lambda value: (counts[value], value)) if counts else None


def _add_duplicates(entries: list[Mapping[str, Any]], add: Any) -> None:
    """Adds duplicate audio; the first file is kept, or the one in the evaluated split."""
    equals: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        equals.setdefault(entry["audio"], []).append(entry)
    for same in equals.values():
        kept, *others = sorted(same, key=lambda entry: (KEPT_FIRST.get(entry["split"], 2), entry["path"]))
        for entry in others:
            if entry["split"] != kept["split"]:
                prefix = "it" if entry["path"] == kept["path"] else f"the same audio as {kept['path']}, it"
                add(entry, "in_two_splits", f"{prefix} is in {entry['split']} and in {kept['split']}")
            else:
                add(entry, "duplicate", f"the same audio as {kept['path']}")


def apply_guards(
    files: Sequence[Mapping[str, Any]], problems: Sequence[Problem], source: str
) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Reports the problems and removes the files to skip.

    Args:
        files: Entries with `path` and `split`.
        problems: Problems from find_problems.
        source: Name of the source.

    Returns:
        The files to use, and the number of problems by `<kind>_<action>`.

    Raises:
        UserError: A problem stops the run.
    """
    if not problems:
        return list(files), {}
    report = table(problems)
    logger.warning("%d problems in %s:\n%s", len(problems), source, report)
    print(f"{len(problems)} problems in {source}:\n{report}", file=sys.stderr, flush=True)
    stopping = [problem for problem in problems if problem.action == "stop"]
    if stopping:
        kinds = Counter(problem.kind for problem in stopping)
        summary = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        raise UserError(
            f"{len({problem.path for problem in stopping})} files cannot be mixed ({summary}), listed above; "
            "fix or remove them, or set guards.action: skip, or guards.by_problem, in the recipe",
            file=stopping[0].path if len(stopping) == 1 else source,
        )
    skipped = {(problem.path, problem.split) for problem in problems if problem.action == "skip"}
    kept = [entry for entry in files if (entry["path"], entry["split"]) not in skipped]
    counts = Counter(f"{problem.kind}_{'used' if problem.action == 'use' else 'skipped'}" for problem in problems)
    return kept, dict(sorted(counts.items()))


def table(problems: Sequence[Problem]) -> str:
    """The problems as a text table."""
    heads = ("file", "problem", "what was found", "action")
    rows = [(each.path, each.kind, each.detail, each.action) for each in problems[:_ROWS_SHOWN]]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(3)]
    lines = [
        "  ".join([*(f"{row[column]:<{widths[column]}}" for column in range(3)), row[3]]) for row in (heads, *rows)
    ]
    if len(problems) > _ROWS_SHOWN:
        lines.append(f"... and {len(problems) - _ROWS_SHOWN} more, all of them in problems.csv")
    return "\n".join(lines)


def _db(peak: float) -> str:
    return f"{20 * math.log10(peak):.0f} dB" if peak > 0 else "0"


def write_problems(target: Path, problems: Sequence[Problem]) -> None:
    """Writes all problems as a CSV file: file, split, problem, found, action."""
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(["file", "split", "problem", "found", "action"])
    rows.writerows([each.path, each.split, each.kind, each.detail, each.action] for each in problems)
    write_text(target, written.getvalue())
