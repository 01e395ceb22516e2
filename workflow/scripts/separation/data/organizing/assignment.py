"""Assignment of files to class, song, speaker and split, by path, list files or a table."""

from __future__ import annotations

import csv
import fnmatch
import functools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from separation.errors import UserError
from separation.experiment.ids import seed_from_text

FIELDS = ("split", "class", "song", "speaker")
_PATTERNS = {"class": ["{class}/{song}"], "song": ["{song}/{class}"], "list": ["{class}/{song}"]}


def assign(
    paths: Sequence[str], organize: Mapping[str, Any], splits: Sequence[str], read: Any
) -> tuple[list[dict[str, str]], list[str]]:
    """Assigns files to classes, songs, speakers and splits.

    Args:
        paths: Paths relative to the source's folder.
        organize: Section of a recipe: by, patterns, splits, seed, lists, rest, table, ignore.
        splits: The recipe's splits.
        read: Function that returns the text of a list or table by its path in the recipe.

    Returns:
        `path`, `split`, `class`, `song` and, if known, `speaker` of every assigned file, twice if lists put it into two
        splits; and the paths of the other files.

    Raises:
        UserError: A file's split or class is unknown.
    """
    ignored = organize.get("ignore") or []
    paths = [path for path in paths if not any(fnmatch.fnmatch(path, pattern) for pattern in ignored)]
    by = organize.get("by", "class")
    if by == "fold":
        found = _by_table(paths, organize, read)
    elif by == "list":
        found = _by_lists(paths, organize, read)
    else:
        found = _by_patterns(paths, organize, splits)
    found = _with_splits(found, organize, splits)
    assigned = {entry["path"] for entry in found}
    return found, [path for path in paths if path not in assigned]


def _by_patterns(paths: Sequence[str], organize: Mapping[str, Any], splits: Sequence[str]) -> list[dict[str, str]]:
    patterns = organize.get("patterns")
    if not patterns:
        if organize.get("by", "class") == "pattern":
            raise UserError("expected `patterns`, found none", key="organize.patterns")
        # top folders are splits if all files are in folders named after splits
        by_split = bool(paths) and all(path.split("/")[0] in splits for path in paths)
        lead = "{split}/" if by_split else ""
        patterns = [{"match": lead + each} for each in _PATTERNS[organize.get("by", "class")]]
    result = []
    for path in paths:
        entry = match_fields(path, patterns)
        if entry is not None:
            result.append({"path": path, **entry})
    return result


def match_fields(path: str, patterns: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """The fields of a path by the first pattern that matches; None without a match."""
    for pattern in patterns:
        found = _expression(pattern["match"]).fullmatch(path.rpartition(".")[0])
        if found:
            named = {name: value for name, value in found.groupdict().items() if value and name in FIELDS}
            return named | {key: pattern[key] for key in ("class", "split") if key in pattern}
    return None


@functools.cache
def _expression(pattern: str) -> re.Pattern:
    parts, named = [], set()
    for part in re.split(r"(\{\w+(?::[^}]*)?\}|\*)", re.sub(r"\.\w{2,4}$", "", pattern)):
        name, _, shape = part[1:-1].partition(":") if part.startswith("{") else ("", "", "")
        if part == "*" or name == "_":
            parts.append("[^/]*")
        elif not name:
            parts.append(re.escape(part))
        elif name not in FIELDS:
            raise UserError(f"expected one of {', '.join(FIELDS)} or _, found {part}", key="organize.patterns")
        elif name in named:
            parts.append(f"(?P={name})")
        else:
            named.add(name)
            free = ".+" if name == "song" else "[^/]+"
            # fnmatch returns an expression that ends in \\Z or \\z
            parts.append(f"(?P<{name}>{re.sub(r'..$', '', fnmatch.translate(shape)) if shape else free})")
    return re.compile("".join(parts))


def _by_lists(paths: Sequence[str], organize: Mapping[str, Any], read: Any) -> list[dict[str, str]]:
    if not organize.get("lists"):
        raise UserError("expected `lists`, one file per split, found none", key="organize.lists")
    known, listed, result = set(paths), set(), []
    lists = {name: path for name, path in organize["lists"].items() if not name.endswith("_sha256")}
    patterns = organize.get("patterns") or [{"match": each} for each in (*_PATTERNS["list"], "{song}")]
    for split, file in lists.items():
        for number, line in enumerate(read(file).splitlines(), start=1):
            # the name itself may contain a comma
            whole = _named(line.strip(), known)
            words = [whole] if whole in known else [word.strip() for word in re.split(r"[\t,]", line)]
            if not words[0] or words[0].startswith("#"):
                continue
            path = _named(words[0], known)
            if path not in known:
                raise UserError(f"the source has no audio file {path!r}", file=file, line=number)
            listed.add(path)
            entry = {**(match_fields(path, patterns) or {}), "split": split}
            entry |= dict(zip(("class", "song", "speaker"), words[1:], strict=False))
            if "class" not in entry:
                raise UserError(
                    f"the class of {path!r} is unknown: add it after a tab, or set `patterns`",
                    file=file, line=number,
                )  # fmt: skip
            result.append({"path": path, **entry})
    if organize.get("rest"):
        for path in paths:
            entry = match_fields(path, patterns) if path not in listed else None
            if entry and "class" in entry:
                result.append({"path": path, **entry, "split": organize["rest"]})
    return result


def _named(path: str, known: Collection[str]) -> str:
    """A path in the form of the source's files, without a leading ./ and with slashes for backslashes."""
    path = path.removeprefix("./")
    return path if path in known else path.replace("\\", "/").removeprefix("./")


def _by_table(paths: Sequence[str], organize: Mapping[str, Any], read: Any) -> list[dict[str, str]]:
    table = organize.get("table")
    if not table:
        raise UserError("expected `table`, found none", key="organize.table")
    split_of = {str(fold): split for split, folds in table["folds"].items() for fold in folds}
    known, result = set(paths), []
    rows = csv.DictReader(read(table["file"]).splitlines())
    for row in rows:
        try:
            path, entry = table["path"].format(**row), {"class": row[table["class"]]}
            fold = row[table["fold"]]
            entry |= {name: row[table[name]] for name in ("speaker", "song") if name in table}
        except KeyError as error:
            raise UserError(
                f"the table has no column {error}, only {', '.join(rows.fieldnames or [])}",
                file=table["file"], key="organize.table",
            ) from None  # fmt: skip
        if fold not in split_of:
            continue
        empty = next((name for name, value in entry.items() if not value), None)
        if empty:
            raise UserError(f"expected a {empty}, found none", file=table["file"], line=rows.line_num)
        path = _named(path, known)
        if path not in known:
            raise UserError(f"the source has no audio file {path!r}", file=table["file"], line=rows.line_num)
        result.append({"path": path, **entry, "split": split_of[fold]})
    return result


def _with_splits(
    found: list[dict[str, str]], organize: Mapping[str, Any], splits: Sequence[str]
) -> list[dict[str, str]]:  # fmt: skip
    """Adds the split, and the song if missing: the file's name."""
    shares = organize.get("splits") or {}
    for entry in found:
        if "class" not in entry:
            raise UserError(f"no pattern sets the class of {entry['path']!r}", key="organize.patterns")
        entry.setdefault("song", Path(entry["path"]).stem)
    without = [entry for entry in found if "split" not in entry]
    if not without:
        return found
    if not shares:
        raise UserError(
            f"the split of {without[0]['path']!r} is unknown: name the top folders {', '.join(splits)}, or set "
            "organize.splits, such as {train: 0.8, val: 0.1, test: 0.1}",
            key="organize.splits",
        )
    patterns = {split: value for split, value in shares.items() if isinstance(value, list)}
    numbers = {split: float(value) for split, value in shares.items() if not isinstance(value, list)}
    if numbers and not patterns and abs(sum(numbers.values()) - 1) > 1e-6:
        raise UserError(f"expected shares with a sum of 1, found {sum(numbers.values()):g}", key="organize.splits")
    drawn = _draw_splits(without, numbers, int(organize.get("seed", 0))) if numbers else {}
    result = []
    for entry in found:
        if "split" in entry:
            result.append(entry)
            continue
        named = [
            split for split, each in patterns.items() if any(fnmatch.fnmatch(entry["path"], one) for one in each)
        ]  # fmt: skip
        split = named[0] if named else drawn.get(_unit(entry))
        if split is not None:
            result.append({**entry, "split": split})
    return result


def _unit(entry: Mapping[str, str]) -> str:
    """The unit that stays within one split: a speaker if known, else a song."""
    return f"speaker {entry['speaker']}" if "speaker" in entry else f"{entry['song']}"


def _draw_splits(entries: list[dict[str, str]], shares: dict[str, float], seed: int) -> dict[str, str]:
    """The split of each speaker or song, drawn separately for each class."""
    drawn: dict[str, str] = {}
    for name in sorted({entry["class"] for entry in entries}):
        units = sorted({_unit(entry) for entry in entries if entry["class"] == name} - set(drawn))
        order = np.random.default_rng([seed, seed_from_text(name)]).permutation(len(units))
        ends = np.round(np.cumsum(list(shares.values())) / sum(shares.values()) * len(units)).astype(int)
        start = 0
        for split, end in zip(shares, ends, strict=True):
            drawn |= {units[index]: split for index in order[start:end]}
            start = end
    return drawn
