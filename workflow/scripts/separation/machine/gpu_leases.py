"""Each GPU job holds its devices alone, or a share of one, by locks that the kernel frees when the job dies.

There is a file per device, and per share of it, in a folder that all clones and users of this machine have in common. A
job locks them, see separation.files.locks. Snakemake's resource `gpu` lets as many jobs start as there are places; the
locks say which device is whose, also between workflows that do not know of each other.

One job alone at a time gathers several devices one after the other; all others take what they need at once or nothing.
So no two jobs wait for each other, and a job of several devices is not passed by for ever.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.files import atomic
from separation.files.locks import FileLock, hold_folder, this_process
from separation.machine.gpus import Device, devices_for_jobs, scheduler_job

logger = logging.getLogger(__name__)

#: the environment variable that names the folder of the locks
FOLDER_VARIABLE = "GPU_LOCK_DIRECTORY"
#: not $TMPDIR: all users have to mean the same
FOLDER = Path("/tmp/separation-gpus")
#: seconds between two looks for a free device; a lock cannot be waited for on several files at a time
INTERVAL = 1.0
#: of the file beside a job's benchmark: a row per device and run of the job; times are UTC, `end` is empty where killed
COLUMNS = ("host", "pid", "device", "uuid", "slot", "slots", "begin", "end")


@contextmanager
def gpus_for(snakemake: Any, device: str, count: int = 1) -> Iterator[str]:
    """Holds the GPUs of a job while the block runs: waits for them, and shows no others to CUDA.

    To be entered before torch is imported. Devices and times go to `<...>.devices.tsv` beside the job's benchmark.

    Args:
        snakemake: the job; it uses no GPU where it has none of the resource `gpu`.
        device: auto, cpu, cuda or cuda:<n>, the n-th of the devices that the workflow may use.
        count: how many devices.

    Yields:
        the device for torch: cpu, auto or cuda.

    Raises:
        UserError: there are fewer devices, or the locks' folder cannot be used.
    """
    if device == "cpu" or not snakemake.resources.get("gpu", 0):
        yield "cpu"
        return
    log = Path(str(snakemake.log[0]))
    record = Path("results/benchmarks", *log.parts[1:]).with_name(f"{log.stem}.devices.tsv")
    config = snakemake.config
    devices = _asked_for(device, devices_for_jobs(config.get("gpus", "auto"), os.environ), count)
    if not devices:
        logger.warning("found no GPU on this machine")
        yield device
        return
    what = f"{snakemake.rule} {' '.join(snakemake.wildcards)}"
    with hold_devices(devices, count, slots=int(config.get("gpu_slots", 1)), what=what, record=record):
        yield device.partition(":")[0]


def _asked_for(device: str, devices: list[Device], count: int) -> list[Device]:
    number = device.partition(":")[2]
    if number.isdigit() and devices:
        if int(number) >= len(devices):
            raise UserError(f"expected one of {len(devices)} GPUs, found {device}", key="train_config.device")
        devices = [devices[int(number)]]
    if devices and len(devices) < count:
        raise UserError(
            f"expected {count} GPUs, found {len(devices)} that this job may use", key="train_config.num_gpus"
        )
    if count > 1 and any(found.mig for found in devices):
        raise UserError(
            "expected whole GPUs: CUDA shows a process one MIG device only, so they cannot train together",
            key="train_config.num_gpus",
        )
    return devices


@contextmanager
def hold_devices(
    devices: Sequence[Device],
    count: int = 1,
    *,
    slots: int = 1,
    what: str = "job",
    record: Path | None = None,
    interval: float = INTERVAL,
) -> Iterator[list[Device]]:
    """Holds `count` of the devices while the block runs; CUDA_VISIBLE_DEVICES then names them alone.

    Args:
        devices: those that may be taken.
        count: how many different ones.
        slots: 1 holds devices alone; more shares each with so many jobs. A device that one holds alone, none shares.
        what: the job, for whoever waits for it.
        record: where devices and times are written, see COLUMNS.
        interval: seconds between two looks for a free device.

    Raises:
        UserError: the locks' folder cannot be used.
    """
    folder = _Folder(Path(os.environ.get(FOLDER_VARIABLE) or FOLDER), scheduler_job(os.environ), what)
    variables = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    places: list[_Place] = []
    rows: list[dict[str, Any]] = []
    try:
        places = folder.wait_for(devices, count, slots, interval)
        held = [place.device for place in places]
        names = ", ".join(
            f"{device.name} ({device.key})" if device.key != device.name else device.name for device in held
        )
        logger.info("on GPU %s%s", names, f", slot {places[0].number + 1} of {slots}" if slots > 1 else "")
        # numbers are those of nvidia-smi
        os.environ.update(CUDA_VISIBLE_DEVICES=",".join(device.name for device in held), CUDA_DEVICE_ORDER="PCI_BUS_ID")
        rows = [_row(place, slots) for place in places]
        _write_rows(record, rows)
        yield held
    finally:
        for row in rows:
            row["end"] = _now()
        _write_rows(record, rows)
        for name, value in variables.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        for place in places:
            place.release()
        folder.close()


@dataclass(frozen=True)
class _Place:
    """A device, or a share of it, and the locks that hold it."""

    device: Device
    number: int
    locks: tuple[FileLock, ...]

    def release(self) -> None:
        for lock in reversed(self.locks):
            lock.release()


class _Folder:
    """The folder of the locks, as one job uses it.

    Args:
        path: of the folder.
        scope: the scheduler's job. Its devices are its own whatever their names, so its locks hold within it alone.
        what: the job, for whoever waits for it.
    """

    def __init__(self, path: Path, scope: str | None, what: str):
        self._path, self._scope = path, f"{scope}." if scope else ""
        self._said = this_process(what)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if stat.S_IMODE(path.stat().st_mode) != 0o1777 and path.stat().st_uid == os.getuid():
                path.chmod(0o1777)
            self._self = hold_folder(path)
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Lets go of the folder, and removes what killed jobs have left in it."""
        with suppress(OSError):
            for path in self._path.glob("*.lock"):
                left = FileLock.take(path)
                if left is not None:
                    left.release()
        self._self.close()

    def wait_for(self, devices: Sequence[Device], count: int, slots: int, interval: float) -> list[_Place]:
        """Takes places on `count` different devices, and waits until there are so many."""
        places: list[_Place] = []
        gathers: FileLock | None = None
        began = 0.0
        try:
            while True:
                places += self._take([each for each in devices if each not in [place.device for place in places]],
                                     count - len(places), slots)  # fmt: skip
                if len(places) == count:
                    break
                if gathers is None:
                    while places:
                        places.pop().release()
                    gathers = FileLock.take(self._path / f"{self._scope}gathering.lock") if count > 1 else None
                if not began:
                    began = time.monotonic()
                    self._tell_wait(devices, count, slots)
                time.sleep(interval)
            if began:
                logger.info("waited %.0f s", time.monotonic() - began)
            return places
        except OSError as error:
            self._give_up(places)
            raise self._unusable(error) from error
        except BaseException:
            self._give_up(places)
            raise
        finally:
            if gathers is not None:
                gathers.release()

    def _give_up(self, places: list[_Place]) -> None:
        for place in places:
            place.release()

    def _take(self, devices: Sequence[Device], count: int, slots: int) -> list[_Place]:
        """Up to `count` places on different devices, those first that fewest jobs share."""
        places: list[_Place] = []
        for number in range(slots):
            for device in devices:
                if len(places) == count:
                    return places
                if all(device != place.device for place in places):
                    place = self._take_one(device, number, slots)
                    places += [place] if place else []
        return places

    def _take_one(self, device: Device, number: int, slots: int) -> _Place | None:
        whole = FileLock.take(self._lock_path(device), shared=slots > 1)
        if whole is None:
            return None
        if slots == 1:
            whole.tell(self._said)
            return _Place(device, 0, (whole,))
        share = FileLock.take(self._lock_path(device, number))
        if share is None:
            whole.release()
            return None
        share.tell(self._said)
        return _Place(device, number, (whole, share))

    def _lock_path(self, device: Device, slot: int | None = None) -> Path:
        name = re.sub(r"[^A-Za-z0-9.-]", "_", self._scope + device.key)
        return self._path / (f"{name}.lock" if slot is None else f"{name}.slot{slot}.lock")

    def _tell_wait(self, devices: Sequence[Device], count: int, slots: int) -> None:
        holders: list[str] = []
        for device in devices:
            whole = self._lock_path(device)
            for path in (whole, *sorted(self._path.glob(f"{whole.stem}.slot*.lock"))):
                with suppress(OSError):
                    said = path.read_text(errors="replace").strip()
                    process = re.match(r"pid (\d+)", said)
                    # what a killed job has left is no lock
                    if process and Path("/proc", process[1]).exists() and said not in holders:
                        holders.append(said)
        wanted = "a GPU" if count == 1 else f"{count} GPUs"
        line = f"waiting for {wanted} of {', '.join(device.name for device in devices)}"
        line += f"; held by {'; '.join(holders)}" if holders else ""
        logger.info("%s", line)
        print(line, file=sys.stderr, flush=True)

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"the folder of GPU locks cannot be used: {error.strerror or error}; {FOLDER_VARIABLE} names another",
            file=self._path,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _row(place: _Place, slots: int) -> dict[str, Any]:
    device = place.device
    uuid = device.key if device.key.startswith(("GPU-", "MIG-")) else ""
    known = {"host": socket.gethostname(), "pid": os.getpid(), "device": device.name, "uuid": uuid}
    return {**known, "slot": place.number, "slots": slots, "begin": _now(), "end": ""}


def _write_rows(record: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Puts the rows of this run behind those of earlier ones."""
    if record is None or not rows:
        return
    earlier: list[dict[str, str]] = []
    if record.exists():
        own = {(row["host"], str(row["pid"]), row["begin"]) for row in rows}
        with open(record, newline="", encoding="utf-8") as source:
            found = csv.DictReader(source, delimiter="\t")
            earlier = [row for row in found if (row.get("host"), row.get("pid"), row.get("begin")) not in own]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows([*earlier, *rows])
    atomic.write_text(record, text.getvalue())
