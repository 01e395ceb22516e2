"""Content-based ids: equal settings give the same id, changed settings a new one.

The hex digits of an id come from the SHA-256 (FIPS 180-4) of the canonical JSON of everything that determines a
result, including the version of the stage that produces it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

# Raise a version when a stage's results change for the same settings: they are then rebuilt under a new id. Changes of
# speed, logging and layout do not count.
STAGE_VERSIONS = {
    "fetch_source": 1,
    "organize_source": 1,
    "resample_source": 1,
    "mix_dataset": 1,
    "features": 1,
    "train": 1,
    "evaluate": 1,
    "baselines": 1,
    # in no id; the tables of finished sweeps are computed again
    "summarize_sweep": 2,
    "systems": 1,
}

# Raise one of these when the results of one tester, or of one kind of algorithm, change: only the evaluations that use
# it are done again. A version of 1 is not part of ids.
TESTER_VERSIONS = {"BSSEvalScale": 2, "BSSEvalV4": 2, "STOI": 2}
CLUSTERING_VERSION = 2

# Settings that affect the speed, location or name of work and never its result. They are not part of any id and reach
# jobs outside `params`.
EXCLUDED = frozenset(
    {
        "info.name",
        "info.project_name",
        "info.notes",
        "info.experiment_key",
        "info.extras",
        "info.output_folder",
        "info.spreadsheet_name",
        "info.worksheet_name",
        # features from a cache are the same as computed ones
        "dataset_config.cache",
        "model_config.name",
        "train_config.num_workers",
        "train_config.device",
        "train_config.checkpoint_minutes",
        "train_config.save_by_epoch",
        "algorithm_config.args.model_path",
        "algorithm_config.args.device",
        "algorithm_config.args.use_cuda",
        "test_config.num_workers",
        # what chooses among points
        "test_config.validation_metric",
    }
)

# Options added after the first release, and the value at which they have no effect. At that value they are not hashed,
# so points trained before the option existed keep their id.
NEUTRAL: dict[str, Any] = {
    "dataset_config.remix": None,
    "model_config.args": {},
    "model_config.axes": None,
    "model_config.select": [],
    "train_config.early_stopping": None,
    "train_config.ema_decay": None,
    "train_config.gradient_accumulation": 1,
    "train_config.gradient_clipping": None,
    "train_config.learning_rate_schedule": "plateau",
    "train_config.max_time": None,
    "train_config.num_gpus": 1,
    "train_config.optimizer_args": {},
    "train_config.precision": "float32",
    "train_config.warmup_steps": 0,
}

HEX_DIGITS = 12


def normalized(value: Any) -> Any:
    """`value` with normalized numbers: 1.0 and 1e0 are 1, -0.0 is 0, and true stays true.

    Raises:
        ValueError: A number is not finite.
    """
    if isinstance(value, dict):
        return {str(key): normalized(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalized(inner) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"expected a finite number, found {value}")
        # above 2**53 a float does not represent a single integer
        if value.is_integer() and abs(value) <= 2**53:
            return int(value)
    return value


def canonical_json(value: Any) -> str:
    """Canonical JSON of `value`: sorted keys, normalized numbers, no spaces, ASCII.

    Raises:
        ValueError: A number is not finite.
        TypeError: A value is of a type that JSON does not have.
    """
    return json.dumps(normalized(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """The first 12 hex digits of the SHA-256 of the canonical JSON of `value`."""
    return text_digest(canonical_json(value))


def text_digest(canonical: str) -> str:
    """The first 12 hex digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(canonical.encode()).hexdigest()[:HEX_DIGITS]


def seed_from_text(text: str) -> int:
    """A number of 32 bits from the SHA-256 of `text`, for seeds of random numbers."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def joined_json(parts: dict[str, str]) -> str:
    """The canonical JSON of a mapping whose values are canonical JSON."""
    return "{" + ",".join(f"{json.dumps(key)}:{parts[key]}" for key in sorted(parts)) + "}"


def slug(text: str) -> str:
    """`text` as a part of an id: lower-case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def without_excluded(
    section: Mapping[str, Any], prefix: str = "", neutral: Mapping[str, Any] = NEUTRAL
) -> dict[str, Any]:
    """The keys of a config section, or of a recipe, that determine results.

    Keys in `EXCLUDED` and options at their neutral value are omitted.

    Args:
        section: Section to filter.
        prefix: Dotted key of the section.
        neutral: Neutral values of options by dotted key.
    """
    kept = {}
    for key, value in section.items():
        path = f"{prefix}.{key}" if prefix else key
        if path in EXCLUDED or (path in neutral and canonical_json(neutral[path]) == canonical_json(value)):
            continue
        kept[key] = without_excluded(value, path, neutral) if isinstance(value, dict) else value
    return kept


def excluded_keys(section: str) -> list[str]:
    """The keys of a config section that are not part of ids."""
    return sorted(key for name, _, key in (path.partition(".") for path in EXCLUDED) if name == section)


def with_neutral(section: dict[str, Any], prefix: str) -> dict[str, Any]:
    """A config section completed by the neutral values of options that it does not contain."""
    neutral = {path.partition(".")[2]: value for path, value in NEUTRAL.items() if path.split(".")[0] == prefix}
    return {**neutral, **section}
