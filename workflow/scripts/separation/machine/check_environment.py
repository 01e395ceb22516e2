"""Check of this machine: variables, devices, programs, packages, folders and clock.

`make check_environment` runs it with the environment's Python or, before `make setup`, with any other: only the
standard library is imported unconditionally. Of secrets, only whether they are set is read.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from separation.files.layout import DIRECTORY_VARIABLES
from separation.machine.environment_variables import (
    EXTRA_PACKAGES,
    NEEDED_PROGRAMS,
    PACKAGES,
    PORTS,
    PROGRAMS,
    VARIABLES,
)

ROOT = Path(__file__).resolve().parents[4]
PYTHONS = ((3, 11), (3, 13))
GIGABYTE = 1e9
#: disk space for the demo, with a margin
DEMO_GIGABYTES = 1.0
#: tolerated difference of a file system's clock in seconds
CLOCK_LIMIT = 2.0

_SECRET = re.compile(r"KEY|TOKEN|PASSWORD|SECRET|HASH")


@dataclass(frozen=True)
class Check:
    """One checked item.

    Attributes:
        section: Variables, Devices, Programs, Packages, Folders or Clock.
        name: Name of the item.
        value: Value found; secrets are `set` or `unset`.
        state: ok, note (something is missing or unusual, but most things work) or missing (the demo would fail).
        means: Meaning for the user.
    """

    section: str
    name: str
    value: str
    state: str = "ok"
    means: str = ""


def check_environment(environment: Mapping[str, str]) -> list[Check]:
    """Checks variables, devices, programs, packages, folders and the clock; leaves no changes behind."""
    parts = (_variables, _devices, _programs, _packages, _folders, _clock)
    return [check for part in parts for check in part(environment)]


def _variables(environment: Mapping[str, str]) -> Iterator[Check]:
    for name, (_, unset) in VARIABLES.items():
        value = environment.get(name, "")
        if _SECRET.search(name):
            yield Check("Variables", name, "set" if value else "unset", means="" if value else unset)
        elif not value:
            yield Check("Variables", name, "unset", means=unset)
        else:
            state, means = _assess(name, value, environment)
            yield Check("Variables", name, _without_credentials(value), state, means)
    for name in PORTS:
        number = environment.get(name) or VARIABLES[name][0]
        if number.isdigit() and 0 < int(number) < 65536 and _in_use(int(number)):
            means = f"another server uses this port; set {name} to a free one"
            yield Check("Variables", f"port {number}", "in use", "note", means)


def _assess(name: str, value: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """State of a variable's value, and the meaning if it is unusable."""
    if name in PORTS and not (value.isdigit() and 0 < int(value) < 65536):
        return "note", "expected the number of a port; nothing can be served"
    if name == "PATH_TO_GOOGLE_CREDENTIALS":
        try:
            found = json.loads(Path(value).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "note", "expected a readable JSON file; `snakemake publish` cannot write the sheet"
        if not isinstance(found, dict) or found.get("type") != "service_account":
            return "note", "expected the key of a service account; `snakemake publish` cannot write the sheet"
    if name == "ENV_FILE" and not Path(value).is_file():
        return "note", "no such file"
    if name == "CODE_DIRECTORY" and not (Path(value) / "Snakefile").is_file():
        return "note", "expected the folder with the Snakefile; containers would mount the wrong folder"
    return "ok", ""


def _without_credentials(value: str) -> str:
    """A value as it is shown: URLs without user, password and query."""
    if "://" not in value:
        return value
    parts = urlsplit(value)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _in_use(port: int) -> bool:
    with socket.socket() as connection:
        connection.settimeout(1)
        return connection.connect_ex(("127.0.0.1", port)) == 0


def _devices(environment: Mapping[str, str]) -> Iterator[Check]:
    yield Check("Devices", "CPU cores", str(len(os.sched_getaffinity(0))))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIGABYTE
    small = memory < 4
    means = "parallel jobs may not fit; run snakemake --jobs 1" if small else ""
    yield Check("Devices", "memory", f"{memory:.1f} GB", "note" if small else "ok", means)
    from separation.machine.gpus import driver_error, scheduler_job, visible_devices

    devices = visible_devices(environment)
    names = ", ".join(device.name for device in devices)
    if not devices:
        error = driver_error()
        means = (
            f"nvidia-smi fails: {error}" if error else "training runs use the CPU and are slower; results are complete"
        )
        yield Check("Devices", "GPUs", "none", "note" if error else "ok", means)
        return
    chosen = scheduler_job(environment)
    yield Check("Devices", "GPUs", f"{len(devices)}: {names}", means=f"chosen by {chosen}" if chosen else "")
    torch = _version("torch") or ""
    if torch.endswith("+cpu"):
        means = "this build of torch cannot use GPUs; run TORCH_INDEX=<index of a CUDA build> make setup"
        yield Check("Devices", "torch for GPUs", torch, "note", means)


def _programs(environment: Mapping[str, str]) -> Iterator[Check]:
    low, high = PYTHONS
    supported = low <= sys.version_info[:2] <= high
    means = "" if supported else f"expected {low[0]}.{low[1]} to {high[0]}.{high[1]}; run PYTHON=<python> make setup"
    found = f"{platform.python_version()} ({sys.executable})"
    yield Check("Programs", "python", found, "ok" if supported else "missing", means)
    inside = sys.prefix != sys.base_prefix
    means = "" if inside else "`make setup` creates .venv; conda and containers work too"
    yield Check("Programs", "environment", sys.prefix if inside else "none", "ok" if inside else "note", means)
    for name, means in PROGRAMS.items():
        found = shutil.which(name, path=environment.get("PATH")) or (
            shutil.which("singularity", path=environment.get("PATH")) if name == "apptainer" else None
        )
        state = "ok" if found else "missing" if name in NEEDED_PROGRAMS else "note"
        yield Check("Programs", name, found or "not found", state, "" if found else means)


def _packages(_: Mapping[str, str]) -> Iterator[Check]:
    locked: dict[str, set[str]] = {}
    for file in ("requirements", "jupyter", "trackers"):
        lock = ROOT / "envs" / f"{file}.lock"
        for line in lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []:
            if match := re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line):
                locked.setdefault(match[1], set()).add(match[2])
    for name in (*PACKAGES, *EXTRA_PACKAGES):
        version, wanted = _version(name), locked.get(name, set())
        needed = name in PACKAGES
        if version is None:
            means = "`make setup` installs it" if needed else EXTRA_PACKAGES[name]
            yield Check("Packages", name, "not installed", "missing" if needed else "note", means)
        elif wanted and version.partition("+")[0] not in wanted:
            means = f"the lock has {' or '.join(sorted(wanted))}; results may differ; `make setup` restores it"
            yield Check("Packages", name, version, "note", means)
        else:
            yield Check("Packages", name, version)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _directories(environment: Mapping[str, str]) -> dict[str, Path]:
    """Folders that the workflow writes to, by name."""
    written: dict[str, str] = {}
    try:
        import yaml

        written = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["directories"]
    except Exception:  # no yaml yet, or a mistake in the file, which the workflow itself reports
        written = {}
    found = {"results": Path("results"), "logs": Path("logs"), ".snakemake": Path(".snakemake")}
    for key, variable in DIRECTORY_VARIABLES.items():
        found[key] = Path(environment.get(variable) or written.get(key) or VARIABLES[variable][0])
    return found | {"temporary files": Path(tempfile.gettempdir())}


def _folders(environment: Mapping[str, str]) -> Iterator[Check]:
    for name, path in _directories(environment).items():
        existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
            free = shutil.disk_usage(existing).free / GIGABYTE
        except OSError as error:
            means = f"not writable: {error.strerror or error}; choose another folder or ask its owner"
            yield Check("Folders", name, str(path), "missing", means)
            continue
        value = f"{path}, {free:.1f} GB free" + ("" if path.exists() else ", not created yet")
        enough = free >= DEMO_GIGABYTES or name in ("logs", ".snakemake", "temporary files")
        means = "" if enough else f"less than {DEMO_GIGABYTES:g} GB free; the demo may not fit"
        yield Check("Folders", name, value, "ok" if enough else "missing", means)


def _clock(environment: Mapping[str, str]) -> Iterator[Check]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    late = time.time() < (ROOT / "Snakefile").stat().st_mtime - 86400
    means = (
        "earlier than the files of this repository; downloads over https may fail, and jobs run again" if late else ""
    )
    yield Check("Clock", "time", now, "note" if late else "ok", means)
    for name in DIRECTORY_VARIABLES:
        path = _directories(environment)[name].absolute()
        existing = next(parent for parent in (path, *path.parents) if parent.exists())
        try:
            with tempfile.NamedTemporaryFile(dir=existing) as written:
                before = time.time()
                written.write(b"now")
                written.flush()
                skew = os.stat(written.name).st_mtime - before
        except OSError:
            continue  # reported among the folders
        off = abs(skew) > CLOCK_LIMIT
        means = (
            "the clock of the file server differs; Snakemake compares times, so synchronize both by NTP" if off else ""
        )
        yield Check("Clock", f"file system of {name}", f"{abs(skew):.1f} s apart", "note" if off else "ok", means)
    try:
        command = ["timedatectl", "show", "-p", "NTPSynchronized", "--value"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return
    synchronized = done.stdout.strip()
    means = "" if synchronized == "yes" else "the clocks of a cluster's machines must agree"
    yield Check("Clock", "synchronized by NTP", synchronized, "ok" if synchronized == "yes" else "note", means)


def _show(checks: list[Check]) -> None:
    """Prints a table, without formatting where rich is not installed."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for check in checks:
            print(f"{check.state:8}{check.name:28}{check.value}{'  -> ' if check.means else ''}{check.means}")
        return
    colours = {"ok": "green", "note": "yellow", "missing": "bold red"}
    console = Console()
    console = console if console.is_terminal else Console(width=200)
    for section in dict.fromkeys(check.section for check in checks):
        table = Table(title=section, title_justify="left", box=None, header_style="dim", pad_edge=False)
        for heading in ("", "name", "found", "what it means"):
            table.add_column(heading, overflow="fold")
        for check in checks:
            if check.section == section:
                cells = (Text(check.state, colours[check.state]), *map(Text, (check.name, check.value, check.means)))
                table.add_row(*cells)
        console.print(table)
        console.print()


def main(arguments: list[str] | None = None) -> int:
    """Command line of `make check_environment`; returns 1 if something that the demo needs is missing."""
    parser = argparse.ArgumentParser(
        prog="check_environment", description="Check what this machine offers to the workflow."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    checks = check_environment(os.environ)
    missing = [check for check in checks if check.state == "missing"]
    if options.json:
        print(json.dumps({"ok": not missing, "checks": [asdict(check) for check in checks]}, indent=1))
    else:
        _show(checks)
        names = ", ".join(check.name for check in missing)
        print(f"Missing for the demo: {names}" if missing else "Everything that the demo needs is available.")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
