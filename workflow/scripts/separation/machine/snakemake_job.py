"""What every job of the workflow does around its one call of the library: threads, log, errors."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from separation.errors import UserError
from separation.files.build_once import made_once
from separation.machine.threads import thread_variables

logger = logging.getLogger(__name__)


@contextmanager
def job(snakemake: Any, *, once: bool | str = False) -> Iterator[None]:
    """Runs the body of a rule's script.

    Sets the threads that the rule was given, before the library's heavy modules are imported; sends everything that is
    logged, and at last the cause of a failure in one line, to the rule's log file. Output files that the body found
    complete and left alone are marked as made now, or Snakemake would ask for them again.

    Args:
        snakemake: the job.
        once: where other workflows may make the same outputs at the same time. One of them does; the others wait, find
            them and leave them alone. Or the name of the input that the outputs depend on, where others only tell that
            parts are there.

    Raises:
        SystemExit: with code 1 where the body fails; the cause is then the log's last line. With code 0 where another
            workflow has made the outputs.
    """
    os.environ.update(thread_variables(snakemake.threads))
    log = Path(str(snakemake.log[0]))
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        outputs = [Path(str(path)) for path in snakemake.output]
        inputs = [
            Path(str(path)) for path in (snakemake.input if once is True else [snakemake.input[once]] if once else [])
        ]
        with made_once(outputs, inputs) if once else nullcontext(True) as needed:
            if needed:
                yield
            else:
                logger.info("%s is there, made by another workflow: nothing to do", outputs[0])
    except UserError as problem:
        _fail(handler, str(problem))
    except Exception as problem:
        handler.stream.write(traceback.format_exc())
        _fail(handler, f"{type(problem).__name__}: {' '.join(str(problem).split())}")
    for path in snakemake.output:
        if Path(str(path)).is_file():
            os.utime(path)
    handler.close()
    if not needed:
        sys.exit(0)


def _fail(handler: logging.FileHandler, cause: str) -> None:
    handler.stream.write(f"Error: {cause}\n")
    handler.close()
    sys.exit(1)
