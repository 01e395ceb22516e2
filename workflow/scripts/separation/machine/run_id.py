"""The id of one run of the workflow, inherited by its jobs."""

from __future__ import annotations

import os
import time
from collections.abc import MutableMapping

RUN_VARIABLE = "SEPARATION_RUN"


def set_run_id(environment: MutableMapping[str, str]) -> None:
    """Sets the id of this run unless it is set, so that jobs print a warning once per run and not once per job."""
    if not environment.get(RUN_VARIABLE):
        environment[RUN_VARIABLE] = f"{time.time():.0f}-{os.getpid()}"
