"""Shared parts of the commands about one sweep: the sweep's arguments and the tables in the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from separation.errors import UserError
from separation.experiment.config import default_config
from separation.experiment.key_paths import short_names
from separation.planning.expansion import load_workflow
from separation.planning.workflow import Workflow

if TYPE_CHECKING:
    from rich.console import Console


def run_command(
    name: str,
    description: str,
    query: Callable[[Workflow], Any],
    show: Callable[[Workflow, Any], None],
    arguments: list[str] | None = None,
) -> int:
    """The command line of `make <name>`; returns the exit code.

    Args:
        name: Name of the command.
        description: Description in the command's help.
        query: Computes the command's result for a sweep, in JSON's types; a UserError is printed in one line.
        show: Prints the result as text.
        arguments: Arguments of the command line; None uses those of the process.
    """
    parser = argparse.ArgumentParser(prog=name, description=description)
    parser.add_argument("--sweep", default=None, help="name of a file in config/experiments, or a path")
    parser.add_argument("--set", default="", help='changes to the experiment, "a.b=1,c.d=[x,y]"')
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    overrides = {key: value for key, value in (("sweep", options.sweep), ("set", options.set)) if value}
    try:
        workflow = load_workflow(default_config() | overrides, os.environ)
        result = query(workflow)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        show(workflow, result)
    return 0


def console() -> Console:
    """The console for tables; 200 columns wide if it is not a terminal."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200)


def swept_columns(points: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The keys in the `swept` values of some points, with short names for column titles."""
    return short_names(list(dict.fromkeys(key for point in points for key in point["swept"])))
