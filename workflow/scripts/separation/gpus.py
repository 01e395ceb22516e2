"""Which GPUs this machine has, found without importing torch."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from separation.errors import UserError


def count_gpus(wanted: str | int, environment: Mapping[str, str]) -> int:
    """How many GPUs jobs may use.

    Args:
        wanted: a number, or `auto`: the devices of CUDA_VISIBLE_DEVICES where that is set, else those that nvidia-smi
            lists.
        environment: the environment's variables.

    Raises:
        UserError: `wanted` is neither.
    """
    if str(wanted) != "auto":
        if not str(wanted).isdigit():
            raise UserError(f"expected a number or auto, found '{wanted}'", file="config", key="gpus")
        return int(wanted)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        devices = []
        for device in (part.strip() for part in visible.split(",")):
            # CUDA itself stops at the first entry that names no device
            if not device or device == "-1":
                break
            devices.append(device)
        return len(devices)
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
