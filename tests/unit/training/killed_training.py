"""Trains a point in processes, most of which are killed after a random processor time.

`python killed_training.py FOLDER SPLITS CONFIG SEED KILLS` prints the number of kills. The training runs in forks of
one process, which has already imported torch.
"""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[3] / "workflow" / "scripts")]

from separation.experiment.options import PointOptions  # noqa: E402
from separation.training.loop import train_point  # noqa: E402

SHORTEST, LONGEST = 0.02, 0.7


def attempt(folder: Path, splits: dict, config: dict, seconds: float | None) -> int:
    """The wait status of a process that trains and is killed after `seconds` of processor time."""
    child = os.fork()
    if child == 0:
        if seconds is not None:
            # nothing handles the signal: the process ends in the middle of a write or a step
            signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            train_point(PointOptions.read(config), folder=folder, splits=splits)
        except BaseException as problem:
            print(repr(problem), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    folder, splits, config, seed, kills = sys.argv[1:]
    rng = np.random.default_rng(int(seed))
    killed = 0
    while killed < int(kills):
        status = attempt(Path(folder), json.loads(splits), json.loads(config), rng.uniform(SHORTEST, LONGEST))
        if not os.WIFSIGNALED(status):
            break
        killed += 1
    status = attempt(Path(folder), json.loads(splits), json.loads(config), None)
    print(killed)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
