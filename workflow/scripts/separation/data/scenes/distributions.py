"""Distributions of event parameters, as a recipe gives them and scaper takes them."""

from __future__ import annotations

import warnings
from typing import Any

from separation.errors import UserError
from separation.nussl_compat import scaper

PARAMETERS = ("source_time", "event_time", "event_duration", "snr", "pitch_shift", "time_stretch")
OPTIONAL = {"event_time": ("const", 0.0), "pitch_shift": None, "time_stretch": None}


def check_event_parameters(
    given: dict[str, Any], classes: list[str], foreground: str
) -> dict[str | None, dict[str, Any]]:
    """Reads the distributions of a recipe; scaper checks each.

    Args:
        given: `event_parameters` of a recipe: distributions or null by parameter; `by_label` has the same per label.
        classes: The available labels.
        foreground: Folder of the classes.

    Returns:
        Distribution tuples or None by label and parameter; the key None has those of all other labels.

    Raises:
        UserError: A parameter or label is unknown, a parameter is missing, or scaper refuses a distribution.
    """
    by_label = given.get("by_label") or {}
    unknown = [label for label in by_label if label not in classes]
    if unknown:
        raise UserError(f"expected one of {', '.join(classes)}", key=f"event_parameters.by_label.{unknown[0]}")
    general = {key: value for key, value in given.items() if key != "by_label"}
    required = [name for name in PARAMETERS if name not in OPTIONAL and name not in general]
    if required:
        raise UserError(
            "expected a distribution such as [const, 0], found nothing", key=f"event_parameters.{required[0]}"
        )
    result = {None: OPTIONAL | _distributions(general, "event_parameters", classes[0], foreground)}
    for label, overrides in by_label.items():
        result[label] = _distributions(overrides or {}, f"event_parameters.by_label.{label}", label, foreground)
    return result


def _distributions(given: dict[str, Any], key: str, label: str, foreground: str) -> dict[str, Any]:
    valid = {"source_time": ("const", 0), "event_duration": ("const", 1), "snr": ("const", 0), **OPTIONAL}
    result = {}
    for name, value in given.items():
        if name not in PARAMETERS:
            raise UserError(f"expected one of {', '.join(PARAMETERS)}", key=f"{key}.{name}")
        result[name] = distribution(value)
        try:
            checker = scaper.Scaper(1.0, foreground, foreground)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parameters = valid | {name: result[name]}
                checker.add_event(label=("const", label), source_file=("choose", []), **parameters)
        except (scaper.scaper_exceptions.ScaperError, TypeError, IndexError, AttributeError) as error:
            raise UserError(
                f"expected a distribution of scaper such as [uniform, 0, 1], found {value!r}: {error}",
                key=f"{key}.{name}",
            ) from error
    return result


def distribution(value: Any) -> Any:
    """A distribution as scaper takes it. All numbers are floats: their spelling in the recipe does not change files."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(
        [float(each) for each in part] if isinstance(part, list | tuple) else float(part) if _is_number(part) else part
        for part in value
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
