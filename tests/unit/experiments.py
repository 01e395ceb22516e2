"""Small experiments for tests."""

import copy
from pathlib import Path

from separation.files.yaml_reader import read_yaml
from separation.files.yaml_writer import write_yaml
from separation.planning.expansion import load_workflow
from separation.planning.workflow import Workflow

TINY = Path(__file__).resolve().parents[1] / "experiments" / "tiny_dpcl.yml"


def experiment(**changes):
    """The tiny experiment's content; `a__b=value` changes the key a.b, `sweep=` the sweep."""
    content = read_yaml(TINY).value
    content.pop("sweep")
    content = copy.deepcopy(content)
    for key, value in changes.items():
        section, parts = content, key.split("__")
        for part in parts[:-1]:
            section = section.setdefault(part, {})
        section[parts[-1]] = value
    return content


def plan(content: dict, folder: Path, *, overrides: str = "", environment: dict | None = None) -> Workflow:
    """Writes an experiment into `folder` and returns its workflow."""
    path = folder / "experiment.yml"
    write_yaml(path, content)
    # not the results in the repository
    directories = {f"{name}_DIRECTORY": str(folder / name.lower()) for name in ("DATA", "CACHE", "ARTIFACTS")}
    return load_workflow({"sweep": str(path), "set": overrides}, directories | (environment or {}))


def swept(workflow: Workflow) -> list[dict]:
    """Swept values of every point, in order."""
    return [row.swept for row in workflow.rows]
