"""Which GPUs this machine has and this process may use, found without importing torch."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from separation.errors import UserError

#: the variables by which schedulers tell a job its number, and its place in an array where the number is that of all
SCHEDULERS = {
    "Slurm": ("SLURM_JOB_ID",),
    "LSF": ("LSB_JOBID", "LSB_JOBINDEX"),
    "PBS": ("PBS_JOBID",),
    # JOB_ID alone is too common a name
    "SGE": ("SGE_TASK_ID", "JOB_ID"),
}
_LISTED = re.compile(r"(?P<mig>\s+MIG\b.*)?(?:GPU (?P<number>\d+):.*)?\(UUID: (?P<uuid>[^)\s]+)\)\s*$")


@dataclass(frozen=True)
class Device:
    """A GPU, or a MIG part of one.

    Attributes:
        name: what CUDA_VISIBLE_DEVICES calls it: a number as nvidia-smi counts, a GPU's UUID or a MIG id.
        key: what tells it from all other devices, by whatever name it goes: its UUID; without nvidia-smi, its name.
    """

    name: str
    key: str

    @property
    def mig(self) -> bool:
        """Whether it is a part of a GPU."""
        return self.key.startswith("MIG-")


def count_gpus(wanted: str | int, environment: Mapping[str, str], slots: str | int = 1) -> int:
    """How many jobs that use a GPU may run at a time: what the workflow has of the resource `gpu`.

    Args:
        wanted: a number of devices, or `auto`: all of `visible_devices`.
        environment: the environment's variables.
        slots: how many jobs share a device.

    Raises:
        UserError: `wanted` is neither.
    """
    if str(wanted) != "auto":
        if not str(wanted).isdigit():
            raise UserError(f"expected a number or auto, found '{wanted}'", file="config", key="gpus")
        return int(wanted) * int(slots)
    return len(visible_devices(environment)) * int(slots)


def check_num_gpus(asked: Iterable[int], places: int, slots: str | int = 1) -> None:
    """Stops where a training needs more devices than there are; where there are none, all train on the CPU.

    Args:
        asked: train_config.num_gpus of each training.
        places: what `count_gpus` counts.
        slots: how many jobs share a device.

    Raises:
        UserError: such a training.
    """
    devices, most = places // int(slots), max(asked, default=0)
    if devices and most > devices:
        raise UserError(f"expected at most the {devices} GPUs of this run, found {most}", key="train_config.num_gpus")


def devices_for_jobs(wanted: str | int, environment: Mapping[str, str]) -> list[Device]:
    """The devices that jobs of this machine share out among themselves.

    Args:
        wanted: a number of devices, the first so many, or `auto`, all of them. A scheduler's choice stands as it is.
        environment: the environment's variables.
    """
    devices = visible_devices(environment)
    return devices if str(wanted) == "auto" or scheduler_job(environment) else devices[: int(wanted)]


def visible_devices(environment: Mapping[str, str]) -> list[Device]:
    """The devices that CUDA_VISIBLE_DEVICES names where it is set, else those that nvidia-smi lists.

    As in CUDA, the list ends at the first entry that names no device, UUIDs may be cut short where that leaves them
    unique, and a GPU that is divided (MIG) stands for its first part when it is named as a whole. See "CUDA environment
    variables" in NVIDIA's CUDA C++ programming guide, and its MIG user guide.
    """
    listed = _listed()
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return [Device(part.name if part.mig else name, part.key) for name, parts in listed.items() for part in parts]
    devices: list[Device] = []
    for name in (part.strip() for part in visible.split(",")):
        device = _named(name, listed)
        if device is None:
            break
        if all(device.key != other.key for other in devices):
            devices.append(device)
    return devices


def scheduler_job(environment: Mapping[str, str]) -> str | None:
    """The scheduler's job that this process runs in, such as Slurm-4711, where it chose the devices; else None."""
    if environment.get("CUDA_VISIBLE_DEVICES") is None:
        return None
    for scheduler, variables in SCHEDULERS.items():
        if environment.get(variables[0]):
            return "-".join([scheduler, *(environment[name] for name in variables if environment.get(name))])
    return None


def _named(name: str, listed: Mapping[str, list[Device]]) -> Device | None:
    """The device that an entry of CUDA_VISIBLE_DEVICES names."""
    if not name or name == "-1":
        return None
    if not listed:
        # nothing tells the devices' UUIDs: a number is one of this machine's
        return Device(name, f"{socket.gethostname()}-{name}" if name.isdigit() else name)
    if name.isdigit():
        parts = listed.get(str(int(name)), [])
        return Device(parts[0].name if parts[0].mig else name, parts[0].key) if parts else None
    found = [part for parts in listed.values() for part in parts if part.key.startswith(name)]
    if len(found) == 1:
        return Device(name, found[0].key)
    # a whole GPU that is divided is known by its parts alone; ids of the form MIG-GPU-<uuid>/<n>/<n> are not listed
    return Device(name, name) if not found else None


def _listed() -> dict[str, list[Device]]:
    """What nvidia-smi lists: by number, the GPU, or its parts where it is divided. Empty where it does not run."""
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


def complaint_of_driver() -> str:
    """What nvidia-smi says where it is there and fails, as it does when the driver was updated and not loaded again."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return " ".join((done.stdout + done.stderr).split())[:200] if done.returncode else ""
