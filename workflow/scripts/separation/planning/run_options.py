"""What a job receives besides its spec: settings that change no result, outside `params` so that no job reruns."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.experiment.ids import HEX_DIGITS
from separation.files.atomic import write_text

#: in Snakemake's folder, where jobs on other machines and in containers can read it
TABLES = Path(".snakemake/run_options")
_DAYS_KEPT = 60


@dataclass
class JobTable:
    """Settings that grow with the sweep, in one file; a job reads its own entry.

    Attributes:
        common: Settings of the first point, by section, and `splits`: the arguments of `Items` by split.
        points: Sections in which another point differs from `common`, by point.
        labels: `label` and `swept` values by point.
        caches: Arguments of `Items` by <cache>/<split>.
        evaluations: Arguments of `Items` for the split that is scored, by evaluation.
        systems: `test`, the arguments of `Items`, `folder`, `dataset_config` and info.extras as `extras`, by id of the
            system.
        baselines: The same for the splits `train` and `test`, and info.extras as `extras`, by id of the baselines.
        sources: Folders, lists, scripts and downloads by source; see dataset_steps.Steps.
        datasets: Names of datasets by id.
        source_folders: Folders of sources below DATA.
    """

    common: dict[str, Any] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    caches: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    source_folders: list[str] = field(default_factory=list)

    def add_point(self, point: str, options: Mapping[str, Any]) -> None:
        """Stores the settings of a point: all of the first point, for others only the differences from it."""
        if not self.common:
            self.common = dict(options)
        elif differing := {key: value for key, value in options.items() if value != self.common[key]}:
            self.points[point] = differing

    def point(self, point: str) -> dict[str, Any]:
        """The settings of a point that change no result, by section, and its `splits`."""
        return {**self.common, **self.points.get(point, {})}

    def _text(self) -> str:
        # in its own order: config.yml has the keys in the order of the experiment file
        return json.dumps(vars(self), separators=(",", ":"))

    def file(self, sweep: str) -> str:
        """The file of this table, named by its contents."""
        return str(_file_of(sweep, self._text()))

    def write(self, sweep: str) -> None:
        """Writes the file if it is missing, and removes old files of the sweep that no run has used lately."""
        text = self._text()
        path = _file_of(sweep, text)
        if path.exists():
            with suppress(PermissionError):  # somebody else's, in a shared clone
                os.utime(path)
        else:
            write_text(path, text)
        for other in TABLES.glob(f"{sweep}-{'?' * HEX_DIGITS}.json"):
            # another run may remove it at the same time
            with suppress(FileNotFoundError, PermissionError):
                if other.stat().st_mtime < time.time() - _DAYS_KEPT * 86400:
                    other.unlink()

    def strings(self) -> Iterator[str]:
        """All strings in the table, including every path."""
        yield from _strings(vars(self))


@dataclass(frozen=True)
class RunOptions:
    """Options of a run for all its jobs. Their size does not depend on the number of points.

    Attributes:
        sweep: Name of the sweep.
        sweep_file: Experiment file.
        overrides: Values from the command line, by key.
        artifacts: Folder of artifacts.
        downloads: Folder of downloads.
        offline: Whether downloads are forbidden.
        tracking: `mode`, `names` and options of the trackers.
        publishing: Options of the sheet and the workbook.
        table: File of the JobTable.
    """

    sweep: str
    sweep_file: str
    overrides: dict[str, Any]
    artifacts: str
    downloads: str
    offline: bool
    tracking: dict[str, Any]
    publishing: dict[str, Any]
    table: str

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> RunOptions:
        """The options in the `config` of a job."""
        return cls(**config["run_options"])

    def as_config(self) -> dict[str, Any]:
        """The options as plain values, for Snakemake's `config`."""
        return dataclasses.asdict(self)

    def strings(self) -> Iterator[str]:
        """All strings in the options, including every path."""
        yield from _strings(self.as_config())

    @functools.cached_property
    def jobs(self) -> JobTable:
        """The table of points, splits and sources.

        Raises:
            UserError: The table's file was deleted.
        """
        try:
            content = json.loads(Path(self.table).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(
                "the options of this run were deleted with .snakemake; start the workflow again", file=self.table
            ) from error
        return JobTable(**content)

    def provenance_inputs(self, table: JobTable) -> dict[str, Any]:
        """The arguments of report/provenance, by name."""
        return {
            "sweep_file": Path(self.sweep_file),
            "notes": table.common["info"]["notes"],
            "overrides": self.overrides,
            "datasets": table.datasets,
            "source_folders": [Path(folder) for folder in table.source_folders],
        }

    def sheet_destination(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """The `spreadsheet` and `worksheet` that results go to.

        Args:
            info: The experiment's `info`, which overrides config.
        """
        return {
            "spreadsheet": info.get("spreadsheet_name") or self.publishing["spreadsheet"],
            "worksheet": info.get("worksheet_name") or self.publishing["worksheet"] or self.sweep,
        }


def _file_of(sweep: str, text: str) -> Path:
    return TABLES / f"{sweep}-{hashlib.sha256(text.encode()).hexdigest()[:HEX_DIGITS]}.json"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
