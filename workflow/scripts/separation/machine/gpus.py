"""GPUs of this machine that this process may use, without importing torch."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from separation.errors import UserError

#: variables with the id of a scheduler's job, and its array index if the id is that of the array
SCHEDULERS = {
    "Slurm": ("SLURM_JOB_ID",),
    "LSF": ("LSB_JOBID", "LSB_JOBINDEX"),
    "PBS": ("PBS_JOBID",),
    # JOB_ID on its own is too common a name
    "SGE": ("SGE_TASK_ID", "JOB_ID"),
}
_LISTED = re.compile(r"(?P<mig>\s+MIG\b.*)?(?:GPU (?P<number>\d+):.*)?\(UUID: (?P<uuid>[^)\s]+)\)\s*$")


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG part of one.

    Attributes:
        name: Name in CUDA_VISIBLE_DEVICES: a number as in nvidia-smi, a GPU's UUID or a MIG id.
        key: Unique key, the same for all names of the device: its UUID; without nvidia-smi, its name.
    """

    name: str
    key: str

    @property
    def mig(self) -> bool:
        """Whether it is a MIG part of a GPU."""
        return self.key.startswith("MIG-")


def count_gpus(wanted: str | int, environment: Mapping[str, str], slots: str | int = 1) -> int:
    """The number of GPU jobs that may run at a time, which is the workflow's resource `gpu`.

    Args:
        wanted: Number of devices, or `auto` for all of `visible_devices`.
        environment: Environment variables.
        slots: Number of jobs that share a device.

    Raises:
        UserError: `wanted` is neither a number nor `auto`.
    """
    if str(wanted) != "auto":
        if not str(wanted).isdigit():
            raise UserError(f"expected a number or auto, found '{wanted}'", file="config", key="gpus")
        return int(wanted) * int(slots)
    return len(visible_devices(environment)) * int(slots)


def check_num_gpus(requested: Iterable[int], gpu_jobs: int, slots: str | int = 1) -> None:
    """Checks that no training needs more devices than there are; without devices, all train on the CPU.

    Args:
        requested: train_config.num_gpus of each training run.
        gpu_jobs: Result of `count_gpus`.
        slots: Number of jobs that share a device.

    Raises:
        UserError: A training run needs more devices.
    """
    devices, most = gpu_jobs // int(slots), max(requested, default=0)
    if devices and most > devices:
        raise UserError(
            f"expected at most {devices}, the number of GPUs of this run, found {most}", key="train_config.num_gpus"
        )


def devices_for_jobs(wanted: str | int, environment: Mapping[str, str]) -> list[Device]:
    """The devices that are distributed among the jobs of this machine.

    Args:
        wanted: Number of devices, counted from the first, or `auto` for all. A scheduler's choice overrides it.
        environment: Environment variables.
    """
    devices = visible_devices(environment)
    return devices if str(wanted) == "auto" or scheduler_job(environment) else devices[: int(wanted)]


def visible_devices(environment: Mapping[str, str]) -> list[Device]:
    """The devices in CUDA_VISIBLE_DEVICES if it is set, otherwise those that nvidia-smi lists.

    As in CUDA, the list ends at the first unknown entry, UUIDs may be abbreviated as long as they are unique, and the
    number of a divided GPU (MIG) means its first part. See "CUDA environment variables" in NVIDIA's CUDA C++
    programming guide, and its MIG user guide.
    """
    listed = _list_devices()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [Device(part.name if part.mig else name, part.key) for name, parts in listed.items() for part in parts]
    devices: list[Device] = []
    for name in (part.strip() for part in visible.split(",")):
        device = _find(name, listed)
        if device is None:
            break
        if all(device.key != other.key for other in devices):
            devices.append(device)
    return devices


def scheduler_job(environment: Mapping[str, str]) -> str | None:
    """The scheduler's job of this process, such as Slurm-4711, if it chose the devices; otherwise None."""
    if environment.get("CUDA_VISIBLE_DEVICES") is None:
        return None
    for scheduler, variables in SCHEDULERS.items():
        if environment.get(variables[0]):
            return "-".join([scheduler, *(environment[name] for name in variables if environment.get(name))])
    return None


def _find(name: str, listed: Mapping[str, list[Device]]) -> Device | None:
    """The device of an entry in CUDA_VISIBLE_DEVICES; None if there is none."""
    if not name or name == "-1":
        return None
    if not listed:
        # without nvidia-smi UUIDs are unknown, and a number is a device of this machine
        return Device(name, f"{socket.gethostname()}-{name}" if name.isdigit() else name)
    if name.isdigit():
        parts = listed.get(str(int(name)), [])
        return Device(parts[0].name if parts[0].mig else name, parts[0].key) if parts else None
    found = [part for parts in listed.values() for part in parts if part.key.startswith(name)]
    if len(found) == 1:
        return Device(name, found[0].key)
    # divided GPUs are listed only by their parts; ids of the form MIG-GPU-<uuid>/<n>/<n> are not listed
    return Device(name, name) if not found else None


def _list_devices() -> dict[str, list[Device]]:
    """Devices by number, as nvidia-smi lists them: a GPU, or the parts of a divided one. Empty if it fails."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    found: dict[str, list[Device]] = {}
    number = ""
    for line in done.stdout.splitlines():
        match = _LISTED.match(line)
        if match is None:
            continue
        if match["number"] is not None:
            number = match["number"]
            found[number] = [Device(number, match["uuid"])]
        elif match["mig"] and number in found:
            whole = [part for part in found[number] if part.mig]
            found[number] = [*whole, Device(match["uuid"], match["uuid"])]
    return found


def driver_error() -> str:
    """The error message of nvidia-smi; empty if it works or is missing.

    nvidia-smi fails, for example, after an update of the driver until the driver is reloaded.
    """
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return " ".join((done.stdout + done.stderr).split())[:200] if done.returncode else ""
