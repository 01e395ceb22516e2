"""Context of every job of the workflow: threads, log file and error messages."""

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
from separation.files.build_once import build_once
from separation.machine.threads import thread_variables

logger = logging.getLogger(__name__)


@contextmanager
def job(snakemake: Any, *, once: bool | str = False) -> Iterator[None]:
    """Runs the body of a rule's script.

    Limits the threads to those of the rule, before heavy modules are imported. Sends log messages to the rule's log
    file, whose last line is the cause if the job fails. Touches output files that the body left unchanged,
    because Snakemake would otherwise build them again.

    Args:
        snakemake: Job object that Snakemake gives to scripts.
        once: Whether other workflows may build the same outputs at the same time: one of them builds, the others wait
            and reuse the outputs. Or the name of the input that the outputs depend on, if the other inputs only
            mark shards as finished.

    Raises:
        SystemExit: With code 1 if the body fails, with code 0 if another workflow has built the outputs.
    """
    os.environ.update(thread_variables(snakemake.threads))
    skip_format_checkers()
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
        with build_once(outputs, inputs) if once else nullcontext(True) as needed:
            if needed:
                yield
            else:
                logger.info("%s was already built by another workflow; skipping", outputs[0])
    except UserError as error:
        _fail(handler, str(error))
    except Exception as error:
        handler.stream.write(traceback.format_exc())
        _fail(handler, f"{type(error).__name__}: {' '.join(str(error).split())}")
    for path in snakemake.output:
        if Path(str(path)).is_file():
            os.utime(path)
    handler.close()
    if not needed:
        sys.exit(0)


def skip_format_checkers() -> None:
    """Makes jsonschema, which altair imports, do without two modules for formats that no schema here uses.

    Where they are installed (a notebook server needs them), their import takes longer than that of pandas.
    """
    for module in ("rfc3987_syntax", "isoduration"):
        sys.modules.setdefault(module, None)


def _fail(handler: logging.FileHandler, cause: str) -> None:
    handler.stream.write(f"Error: {cause}\n")
    handler.close()
    sys.exit(1)
