"""Shared by all tests."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.nodeid import NodeId

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow" / "scripts"), str(ROOT / "tests"), str(ROOT / "tests" / "unit")]

# seconds of the tests that take over a second, by function; tests/record_durations.py writes them
DURATIONS = ROOT / "tests" / "durations.json"
SERVICES = ROOT / "tests" / "services"
# images, clusters and package installations take this long on slow machines
SECONDS_OF_SERVICES = 1200


def shared_fixtures(item: pytest.Item) -> set[str]:
    """The names of the fixtures that tests of this item's module share."""
    definitions = item._fixtureinfo.name2fixturedefs
    return {name for name, found in definitions.items() if found[-1].scope in ("module", "class")}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Keeps tests that share fixtures in one process; starts the longest first, so that none idles at the end."""
    for item in items:
        if item.path.is_relative_to(SERVICES) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS_OF_SERVICES))
        if shared_fixtures(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
    result = yield
    for item in items:
        # pytest-xdist 3.8 writes groups where pytest 9.2 no longer reads them; tests of a group would run anywhere
        if "_nodeid" in vars(item):
            item._id = NodeId.parse(vars(item)["_nodeid"])
    if hasattr(config, "workerinput"):
        durations = json.loads(DURATIONS.read_text())
        seconds: Counter[str] = Counter()
        for item in items:
            seconds[group_of(item)] += durations.get(function_of(item.nodeid), 0)
        items.sort(key=lambda item: -seconds[group_of(item)])
    return result


def group_of(item: pytest.Item) -> str:
    mark = item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else item.nodeid


def function_of(nodeid: str) -> str:
    """A test's file and function, without parameters and group."""
    return nodeid.split("[")[0].split("@")[0]
