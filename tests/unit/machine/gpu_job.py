"""A job that holds GPUs: `python gpu_job.py '{"devices": [...], "count": 1, "slots": 1, ...}'`.

It prints one line after it leases devices and one before it releases them, both with CUDA_VISIBLE_DEVICES. In between
it waits for a line of input; with `rounds`, it leases devices that many times without waiting.
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


def main(arguments: dict) -> None:
    devices = [Device(name, name) for name in arguments["devices"]]
    options = {"slots": arguments.get("slots", 1), "interval": arguments.get("interval", 0.002)}
    for _ in range(arguments.get("rounds", 1)):
        with hold_devices(devices, arguments.get("count", 1), job=arguments.get("job", "job"), **options) as held:
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(device.name for device in held)
            if "children" in arguments:
                # like data loaders (forks) and senders of trackers (programs)
                get_context("fork").Process(target=outlive, args=(arguments["children"],)).start()
                subprocess.Popen(["cat"], stdin=arguments["children"], stdout=subprocess.DEVNULL, close_fds=False)
            report("begin")
            if "rounds" not in arguments:
                sys.stdin.readline()
            report("end")


def report(event: str) -> None:
    # a single write, so that lines of several jobs do not mix
    os.write(1, f"{event} {os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\n".encode())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
