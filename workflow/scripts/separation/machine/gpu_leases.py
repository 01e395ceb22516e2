"""GPU leases: locks with which each job holds its devices, or slots of one device, exclusively.

There is a lock file per device and per slot, in a folder that all clones and users of this machine share; see
separation.files.locks. Snakemake's resource `gpu` limits the number of running jobs to the number of slots. The locks
assign the devices, also between independent workflows, and are released when a job dies.

Only one job at a time may collect several devices one by one; all others take all their devices at once or none. So no
two jobs wait for each other, and a job with several devices does not starve.
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
from separation.files.layout import BENCHMARKS
from separation.files.locks import FileLock, describe_process, lock_folder
from separation.machine.gpus import Device, devices_for_jobs, scheduler_job

logger = logging.getLogger(__name__)

#: the environment variable that names the folder of the locks
FOLDER_VARIABLE = "GPU_LOCK_DIRECTORY"
#: not $TMPDIR: all users need the same folder
FOLDER = Path("/tmp/separation-gpus")
#: seconds between two attempts; flock cannot wait for several files at a time
INTERVAL = 1.0
#: columns of <...>.devices.tsv, one row per device and run of a job; times are UTC, `end` is empty for killed jobs
COLUMNS = ("host", "pid", "device", "uuid", "slot", "slots", "begin", "end")


@contextmanager
def gpus_for(snakemake: Any, device: str, count: int = 1) -> Iterator[str]:
    """Waits for the GPUs of a job and holds them while the block runs; CUDA sees no others.

    Enter it before torch is imported. Devices and times are written to `<...>.devices.tsv` beside the job's benchmark.

    Args:
        snakemake: Job object; without the resource `gpu` the job uses the CPU.
        device: auto, cpu, cuda or cuda:<n>, the n-th device that the workflow may use.
        count: Number of devices.

    Yields:
        The device for torch: cpu, auto or cuda.

    Raises:
        UserError: There are fewer devices, or the folder of the locks is unusable.
    """
    if device == "cpu" or not snakemake.resources.get("gpu", 0):
        yield "cpu"
        return
    log = Path(str(snakemake.log[0]))
    record = Path(BENCHMARKS, *log.parts[1:]).with_name(f"{log.stem}.devices.tsv")
    config = snakemake.config
    devices = _requested_devices(device, devices_for_jobs(config.get("gpus", "auto"), os.environ), count)
    if not devices:
        logger.warning("no GPU found on this machine")
        yield device
        return
    job = f"{snakemake.rule} {' '.join(snakemake.wildcards)}"
    with hold_devices(devices, count, slots=int(config.get("gpu_slots", 1)), job=job, record=record):
        yield device.partition(":")[0]


def _requested_devices(device: str, devices: list[Device], count: int) -> list[Device]:
    number = device.partition(":")[2]
    if number.isdigit() and devices:
        if int(number) >= len(devices):
            raise UserError(f"expected one of {len(devices)} GPUs, found {device}", key="train_config.device")
        devices = [devices[int(number)]]
    if devices and len(devices) < count:
        raise UserError(
            f"expected {count} GPUs, found {len(devices)} available to this job", key="train_config.num_gpus"
        )
    if count > 1 and any(found.mig for found in devices):
        raise UserError(
            "expected whole GPUs: a process can use only one MIG device, so MIG devices cannot train together",
            key="train_config.num_gpus",
        )
    return devices


@contextmanager
def hold_devices(
    devices: Sequence[Device],
    count: int = 1,
    *,
    slots: int = 1,
    job: str = "job",
    record: Path | None = None,
    interval: float = INTERVAL,
) -> Iterator[list[Device]]:
    """Holds `count` of the devices while the block runs; CUDA_VISIBLE_DEVICES then names only these.

    Args:
        devices: Devices that may be used.
        count: Number of different devices.
        slots: Number of jobs that share a device; 1 for exclusive use. Exclusive devices are never shared.
        job: Name of the job, shown to jobs that wait.
        record: File for devices and times, see COLUMNS.
        interval: Seconds between two attempts.

    Raises:
        UserError: The folder of the locks is unusable.
    """
    folder = _Folder(Path(os.environ.get(FOLDER_VARIABLE) or FOLDER), scheduler_job(os.environ), job)
    variables = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")}
    leases: list[_Lease] = []
    rows: list[dict[str, Any]] = []
    try:
        leases = folder.wait_for(devices, count, slots, interval)
        held = [lease.device for lease in leases]
        names = ", ".join(
            f"{device.name} ({device.key})" if device.key != device.name else device.name for device in held
        )
        logger.info("using GPU %s%s", names, f", slot {leases[0].slot + 1} of {slots}" if slots > 1 else "")
        # count devices as nvidia-smi does
        os.environ.update(CUDA_VISIBLE_DEVICES=",".join(device.name for device in held), CUDA_DEVICE_ORDER="PCI_BUS_ID")
        rows = [_row(lease, slots) for lease in leases]
        _write_rows(record, rows)
        yield held
    finally:
        for row in rows:
            row["end"] = _now()
        _write_rows(record, rows)
        for name, value in variables.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        for lease in leases:
            lease.release()
        folder.close()


@dataclass(frozen=True)
class _Lease:
    """A device or a slot of it, and the locks that hold it."""

    device: Device
    slot: int
    locks: tuple[FileLock, ...]

    def release(self) -> None:
        for lock in reversed(self.locks):
            lock.release()


class _Folder:
    """The folder of the locks, for one job.

    Args:
        path: Path of the folder.
        scope: Job of the scheduler. It owns its devices under any name, so locks apply only within it.
        job: Name of the job, shown to jobs that wait.
    """

    def __init__(self, path: Path, scope: str | None, job: str):
        self._path, self._scope = path, f"{scope}." if scope else ""
        self._holder = describe_process(job)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if stat.S_IMODE(path.stat().st_mode) != 0o1777 and path.stat().st_uid == os.getuid():
                path.chmod(0o1777)
            self._folder_lock = lock_folder(path)
        except OSError as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        """Unlocks the folder and removes lock files of killed jobs."""
        with suppress(OSError):
            for path in self._path.glob("*.lock"):
                stale = FileLock.acquire(path)
                if stale is not None:
                    stale.release()
        self._folder_lock.close()

    def wait_for(self, devices: Sequence[Device], count: int, slots: int, interval: float) -> list[_Lease]:
        """Waits until `count` different devices, or slots of them, are free; returns their leases."""
        leases: list[_Lease] = []
        collecting: FileLock | None = None
        began = 0.0
        try:
            while True:
                held = [lease.device for lease in leases]
                leases += self._take([device for device in devices if device not in held], count - len(leases), slots)
                if len(leases) == count:
                    break
                if collecting is None:
                    while leases:
                        leases.pop().release()
                    collecting = FileLock.acquire(self._path / f"{self._scope}gathering.lock") if count > 1 else None
                if not began:
                    began = time.monotonic()
                    self._print_wait(devices, count, slots)
                time.sleep(interval)
            if began:
                logger.info("waited %.0f s", time.monotonic() - began)
            return leases
        except OSError as error:
            self._release(leases)
            raise self._unusable(error) from error
        except BaseException:
            self._release(leases)
            raise
        finally:
            if collecting is not None:
                collecting.release()

    def _release(self, leases: list[_Lease]) -> None:
        for lease in leases:
            lease.release()

    def _take(self, devices: Sequence[Device], count: int, slots: int) -> list[_Lease]:
        """Up to `count` leases of different devices, least shared devices first."""
        leases: list[_Lease] = []
        for slot in range(slots):
            for device in devices:
                if len(leases) == count:
                    return leases
                if all(device != lease.device for lease in leases):
                    lease = self._take_one(device, slot, slots)
                    leases += [lease] if lease else []
        return leases

    def _take_one(self, device: Device, slot: int, slots: int) -> _Lease | None:
        device_lock = FileLock.acquire(self._lock_path(device), shared=slots > 1)
        if device_lock is None:
            return None
        if slots == 1:
            device_lock.write(self._holder)
            return _Lease(device, 0, (device_lock,))
        slot_lock = FileLock.acquire(self._lock_path(device, slot))
        if slot_lock is None:
            device_lock.release()
            return None
        slot_lock.write(self._holder)
        return _Lease(device, slot, (device_lock, slot_lock))

    def _lock_path(self, device: Device, slot: int | None = None) -> Path:
        name = re.sub(r"[^A-Za-z0-9.-]", "_", self._scope + device.key)
        return self._path / (f"{name}.lock" if slot is None else f"{name}.slot{slot}.lock")

    def _print_wait(self, devices: Sequence[Device], count: int, slots: int) -> None:
        holders: list[str] = []
        for device in devices:
            device_path = self._lock_path(device)
            for path in (device_path, *sorted(self._path.glob(f"{device_path.stem}.slot*.lock"))):
                with suppress(OSError):
                    holder = path.read_text(errors="replace").strip()
                    process = re.match(r"pid (\d+)", holder)
                    # killed jobs leave their files behind
                    if process and Path("/proc", process[1]).exists() and holder not in holders:
                        holders.append(holder)
        wanted = "a free GPU" if count == 1 else f"{count} free GPUs"
        line = f"waiting for {wanted} among {', '.join(device.name for device in devices)}"
        line += f"; held by {'; '.join(holders)}" if holders else ""
        logger.info("%s", line)
        print(line, file=sys.stderr, flush=True)

    def _unusable(self, error: OSError) -> UserError:
        return UserError(
            f"cannot use this folder for GPU locks: {error.strerror or error}; set {FOLDER_VARIABLE} to another folder",
            file=self._path,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _row(lease: _Lease, slots: int) -> dict[str, Any]:
    device = lease.device
    uuid = device.key if device.key.startswith(("GPU-", "MIG-")) else ""
    known = {"host": socket.gethostname(), "pid": os.getpid(), "device": device.name, "uuid": uuid}
    return {**known, "slot": lease.slot, "slots": slots, "begin": _now(), "end": ""}


def _write_rows(record: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows of this run after those of earlier runs."""
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
