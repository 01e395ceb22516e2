"""What every job of the workflow does around its one call of the library: threads, log, errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from separation.errors import UserError

# numeric libraries read these once, when they are first imported
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Runs the body of a rule's script.

    Sets the threads that the rule was given, before the library's heavy modules are imported; sends everything that is
    logged, and at last the cause of a failure in one line, to the rule's log file. Output files that the body found
    complete and left alone are marked as made now, or Snakemake would ask for them again.

    Raises:
        SystemExit: with code 1 where the body fails; the cause is then the log's last line.
    """
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(snakemake.threads)
    log = Path(str(snakemake.log[0]))
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except UserError as problem:
        _fail(handler, str(problem))
    except Exception as problem:
        handler.stream.write(traceback.format_exc())
        _fail(handler, f"{type(problem).__name__}: {' '.join(str(problem).split())}")
    for path in snakemake.output:
        if Path(str(path)).is_file():
            os.utime(path)
    handler.close()


def _fail(handler: logging.FileHandler, cause: str) -> None:
    handler.stream.write(f"Error: {cause}\n")
    handler.close()
    sys.exit(1)
