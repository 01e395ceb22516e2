"""What the commands that tell about a sweep share: which sweep is meant, and how it is shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from separation.errors import UserError
from separation.experiment.config import default_config
from separation.planning.expansion import load_workflow
from separation.planning.workflow import Workflow

if TYPE_CHECKING:
    from rich.console import Console


def run_command(
    name: str,
    description: str,
    tell: Callable[[Workflow], Any],
    show: Callable[[Workflow, Any], None],
    arguments: list[str] | None = None,
) -> int:
    """The command line of `make <name>`; gives the exit code.

    Args:
        name, description: of the command.
        tell: what it says of a sweep, as JSON's types; a UserError is told in one line.
        show: shows that to people.
        arguments: of the command line; None takes the process's.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--sweep", default=None, help="a file in config/experiments, or a path")
    parser.add_argument("--set", default="", help='changes, "a.b=1,c.d=[x,y]"')
    parser.add_argument("--json", action="store_true", help="for machines")
    asked = parser.parse_args(arguments)
    given = {key: value for key, value in (("sweep", asked.sweep), ("set", asked.set)) if value}
    try:
        workflow = load_workflow(default_config() | given, os.environ)
        told = tell(workflow)
    except UserError as problem:
        print(f"Error: {problem}", file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps(told, indent=1))
    else:
        show(workflow, told)
    return 0


def console() -> Console:
    """Where tables are shown; wide where that is no terminal."""
    from rich.console import Console

    shown = Console()
    return shown if shown.is_terminal else Console(width=200)


def short_names(swept: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The swept keys, each with its last part where that says which it is."""
    keys = list(dict.fromkeys(key for values in swept for key in values))
    short = {key: key.rsplit(".", 1)[-1] for key in keys}
    return short if len(set(short.values())) == len(short) else {key: key for key in keys}
