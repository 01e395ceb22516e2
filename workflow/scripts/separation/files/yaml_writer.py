"""YAML writer whose output YAML 1.1 and 1.2 readers read as the same values."""

from __future__ import annotations

import math
import os
from typing import Any

import yaml

from separation.files.atomic import write_text
from separation.files.yaml_reader import resolve_scalar


class _Dumper(yaml.SafeDumper):
    """Dumper without anchors, with numbers that YAML 1.1 and 1.2 both read as numbers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: _Dumper, value: float) -> yaml.Node:
    if not math.isfinite(value):
        return dumper.represent_float(value)
    text = repr(value)
    # 1e-05 is a number in YAML 1.2 and a string in 1.1, 1.0e-05 a number in both
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    # quote text that YAML 1.2 reads as a number and PyYAML does not
    style = None if resolve_scalar(value) == value else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _list(dumper: _Dumper, value: list[Any]) -> yaml.Node:
    # on one line, unless it contains mappings
    flow = not any(isinstance(item, dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)


def to_yaml(value: Any) -> str:
    """`value` (mappings, lists, text, finite numbers, booleans, null) as block YAML, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def write_yaml(target: str | os.PathLike, value: Any) -> None:
    """Writes `value` as YAML, atomically."""
    write_text(target, to_yaml(value))
