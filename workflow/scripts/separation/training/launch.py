"""Training of one point in several processes on this machine, with a GPU each, started by torchrun.

torchrun runs `python -m separation.training.launch REQUEST` in each; see https://pytorch.org/docs/stable/elastic.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from separation.errors import UserError
from separation.experiment.options import PointOptions
from separation.files import atomic
from separation.files.layout import PointFolder
from separation.machine.signals import SIGNALS, Stopped
from separation.machine.threads import thread_variables
from separation.machine.torch_device import find_device
from separation.training.ddp import torchrun_process_group
from separation.training.loop import train_point

logger = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def train_together(
    options: PointOptions,
    *,
    folder: Path,
    splits: Mapping[str, Mapping[str, Any]],
    caches: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    count: int,
    log: Path | None = None,
) -> None:
    """Runs `separation.training.loop.train_point` in `count` processes, with gloo on CPUs and nccl on GPUs.

    Args:
        options, folder, splits, caches, device: See train_point.
        threads: Threads of all processes together.
        count: Number of processes.
        log: Log file that the main process appends to.

    Raises:
        UserError: As in train_point, or this machine has fewer GPUs.
        Stopped: A signal requested a stop; the state is saved.
    """
    torch_device = find_device(device)
    if torch_device.type == "cuda" and torch.cuda.device_count() < count:
        raise UserError(
            f"expected {count} GPUs, found {torch.cuda.device_count()} available to this job",
            key="train_config.num_gpus",
        )
    point_folder = PointFolder(Path(folder).resolve())
    state = point_folder.state
    request, failure, output = state / "processes.json", state / "processes.failure", state / "processes.log"
    failure.unlink(missing_ok=True)
    content = {
        # unsorted: the first weights of a network are drawn module by module
        "config": options.written,
        "folder": str(point_folder.path),
        "splits": splits,
        "caches": caches and {name: str(path) for name, path in caches.items()},
        "device": torch_device.type,
        "threads": max(1, threads // count),
        "log": log and str(Path(log).resolve()),
        "failure": str(failure),
    }
    atomic.write_text(request, json.dumps(content))
    torchrun = ["-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={count}"]
    # processes on this machine only: no host name has to be resolved
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]),
        **thread_variables(threads // count),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, *torchrun, "-m", "separation.training.launch", str(request)]
    with output.open("wb") as written:
        child = subprocess.Popen(
            command, env=environment, stdout=written, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
        )
        status = _wait(child)
    if status == 0:
        return
    if not failure.exists():
        last = output.read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        raise UserError(f"torchrun exited with {status}: {last[0]}", file=output)
    kind, message = json.loads(failure.read_text(encoding="utf-8"))
    raise (Stopped if kind == "Stopped" else UserError)(message)


def _wait(child: subprocess.Popen) -> int:
    """Waits for a process and forwards stop signals to it."""
    before = {number: signal.signal(number, lambda received, _: child.send_signal(received)) for number in SIGNALS}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if child.poll() is None:
            child.kill()


def _end_with_parent() -> None:
    """Has the kernel kill this process when its parent dies, even by SIGKILL: no orphan keeps a GPU."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    _end_with_parent()
    if os.getppid() == 1:
        sys.exit(1)  # torchrun died during the imports of this process, before the kernel knew what to do then
    request = atomic.read_json(sys.argv[1])
    if os.environ["RANK"] == "0" and request["log"]:
        logging.basicConfig(
            filename=request["log"], level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
    device = "cpu" if request["device"] == "cpu" else f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        with torchrun_process_group(request["device"]) as processes:
            train_point(
                PointOptions.read(request["config"]),
                folder=Path(request["folder"]),
                splits=request["splits"],
                caches=request["caches"] and {name: Path(path) for name, path in request["caches"].items()},
                device=device,
                threads=request["threads"],
                processes=processes,
            )
    except UserError as problem:
        _record(Path(request["failure"]), problem)
        sys.exit(1)


def _record(failure: Path, problem: UserError) -> None:
    """Records why training failed; only the first process to fail has the cause."""
    try:
        with failure.open("x", encoding="utf-8") as written:
            json.dump([type(problem).__name__, str(problem)], written)
    except FileExistsError:
        pass


if __name__ == "__main__":
    main()
