"""A job that holds GPUs: `python gpu_job.py '{"devices": [...], "count": 1, "slots": 1, ...}'`.

Its output has one line when it begins to hold devices and one before it frees them, each with what CUDA would see.
Between the two it waits for a line of input, or for nothing with `rounds`, which says how many times it takes devices.
"""

import json
import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "workflow" / "scripts")]

from separation.machine.gpu_leases import hold_devices  # noqa: E402
from separation.machine.gpus import Device  # noqa: E402


def outlive(pipe: int) -> None:
    os.read(pipe, 1)


def main(asked: dict) -> None:
    devices = [Device(name, name) for name in asked["devices"]]
    options = {"slots": asked.get("slots", 1), "interval": asked.get("interval", 0.002)}
    for _ in range(asked.get("rounds", 1)):
        with hold_devices(devices, asked.get("count", 1), what=asked.get("what", "job"), **options) as held:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(device.name for device in held)
            if "children" in asked:
                # what a data loader and a tracker's sender are: a fork, and a program of its own
                get_context("fork").Process(target=outlive, args=(asked["children"],)).start()
                subprocess.Popen(["cat"], stdin=asked["children"], stdout=subprocess.DEVNULL, close_fds=False)
            tell("begin")
            if "rounds" not in asked:
                sys.stdin.readline()
            tell("end")


def tell(what: str) -> None:
    # one write: lines of several jobs do not mix
    os.write(1, f"{what} {os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\n".encode())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
