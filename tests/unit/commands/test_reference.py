"""The reference of every key that users write."""

import re

import pytest

from separation.commands.reference import FILES, PAGE, SAME_AS, reference
from separation.experiment.schema_defaults import load_schema


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == reference(), "run `make reference`"


def test_every_row_has_four_cells_and_a_meaning():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 4 and all(cell.strip() for cell in cells), row
        assert cells[-1].strip() != "-", f"no description: {row}"


@pytest.mark.parametrize("name", FILES)
def test_every_key_of_a_schema_is_listed(name):
    """Keys that only repeat those of another section refer to it instead."""

    def keys(node):
        for key, child in node.get("properties", {}).items():
            if not child.get("description", "").startswith(SAME_AS):
                yield key
            yield from keys(child)
        for part in (node.get("items"), node.get("additionalProperties"), *node.get("oneOf", ())):
            if isinstance(part, dict):
                yield from keys(part)
        for part in node.get("$defs", {}).values():
            yield from keys(part)

    section = reference().split(f"\n## {FILES[name][0]}\n")[1].split("\n## ")[0]
    code_and_headings = re.findall(r"`([^`]+)`|^### (.+)$", section, flags=re.MULTILINE)
    listed = {word for found in code_and_headings for word in re.findall(r"\w+", "".join(found))}
    assert set(keys(load_schema(name))) - listed == set()
