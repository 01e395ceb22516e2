"""The testers of test_config: their metrics and arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import UserError

SCALE_METRICS = (
    "SI-SDR", "SI-SDRi", "SI-SIR", "SI-SIRi", "SI-SAR", "SD-SDR", "SD-SDRi", "SNR", "SNRi", "SRR", "LEAKAGE",
)  # fmt: skip
IMPROVEMENTS = {name: f"{name}i" for name in ("SI-SDR", "SI-SIR", "SD-SDR", "SNR")}
BSS_EVAL_METRICS = ("SDR", "ISR", "SIR", "SAR")
METRICS_OF = {
    "BSSEvalScale": SCALE_METRICS,
    "BSSEvalV4": (*BSS_EVAL_METRICS, "cSDR"),
    "BSSEvalV3": ("V3-SDR", "V3-SDRi"),
    "uSDR": ("uSDR",),
    "STOI": ("STOI", "ESTOI"),
    "PESQ": ("PESQ",),
}
DEFAULT_KEY = {
    "BSSEvalScale": "SI-SDR",
    "BSSEvalV4": "SDR",
    "BSSEvalV3": "V3-SDR",
    "uSDR": "uSDR",
    "STOI": "STOI",
    "PESQ": "PESQ",
}
# metrics that cannot decide the order of the estimates
NO_ORDER = ("LEAKAGE", "cSDR")
ARGS_OF = {
    "BSSEvalScale": {"compute_sir_sar"},
    "BSSEvalV4": {"window", "hop", "filters_len", "framewise_filters", "bsseval_sources_version"},
    "BSSEvalV3": set(),
    "uSDR": set(),
    "STOI": {"extended"},
    "PESQ": {"mode"},
}
# No window is that many seconds, and none is shorter than the filter of 512 samples
SAMPLES_FROM = 512
# ITU-T P.862 is defined at two rates, wide-band at one
PESQ_MODES = {8000: ("nb",), 16000: ("wb", "nb")}


@dataclass(frozen=True)
class UserMetric:
    """A metric of the user's own; see `separation.experiment.user_metrics`.

    Attributes:
        name: Name of the class or function, as testers write it.
        file: File that defines it.
        column: Name of the metric in score tables.
        unit: Unit of the scores.
        higher_is_better: Whether a higher score is better.
        definition: Definition in one sentence.
        source: Paper or document that defines it, "" if none is given.
        is_class: Whether it is a class; arguments then go to the constructor.
        parameters: Names of the arguments; None if it takes any.
    """

    name: str
    file: Path
    column: str
    unit: str
    higher_is_better: bool
    definition: str
    source: str
    is_class: bool
    parameters: tuple[str, ...] | None


@dataclass(frozen=True)
class Tester:
    """One entry of test_config.testers.

    Attributes:
        name: One of METRICS_OF, or a class or function of the user's own.
        compute_permutation: Whether estimates may be in any order; otherwise the i-th estimate is of the i-th source.
        best_permutation_key: Metric whose mean over the sources decides the order.
        args: Further arguments of the evaluator (compute_sir_sar; window, hop, mode, ... of museval; extended; mode).
        user_metric: The user's own metric that it computes, if any.
    """

    name: str
    compute_permutation: bool
    best_permutation_key: str
    args: Mapping[str, Any]
    user_metric: UserMetric | None = None


def read_testers(
    testers: Sequence[Any] | Mapping[str, Any],
    sample_rate: int | None = None,
    user_metrics: Mapping[str, UserMetric] | None = None,
) -> list[Tester]:
    """Reads test_config.testers: a list of {name: args}, of names, of [name, args], or one mapping {name: args, ...}.

    Args:
        testers: Value of test_config.testers.
        sample_rate: Sample rate of the data in Hz, for metrics that are defined only at some rates.
        user_metrics: The user's own metrics by name; see `user_metrics.find_user_metrics`.

    Raises:
        UserError: A tester or an argument is unknown, best_permutation_key is not one of the tester's metrics, or a
            metric is not defined at the sample rate.
    """
    key, user_metrics = "test_config.testers", user_metrics or {}
    found = []
    for name, args in tester_entries(testers):
        if name in user_metrics and isinstance(args or {}, Mapping):
            found.append(_read_user_metric(user_metrics[name], dict(args or {}), f"{key}.{name}"))
            continue
        if name not in METRICS_OF or not isinstance(args or {}, Mapping):
            raise UserError(
                f"expected {{name: args}} with name one of {', '.join(METRICS_OF)}, or a class or function in the "
                f"folder info.extras, found {name}{'' if args is None else f': {args}'}",
                key=key,
            )
        args = dict(args or {})
        best = args.pop("best_permutation_key", None) or DEFAULT_KEY[name]
        keys = [metric for metric in METRICS_OF[name] if metric not in NO_ORDER]
        if best not in keys:
            expected = ", ".join(keys)
            raise UserError(f"best_permutation_key: expected one of {expected}, found {best!r}", key=f"{key}.{name}")
        permute = bool(args.pop("compute_permutation", False))
        for unknown in sorted(set(args) - ARGS_OF[name]):
            expected = ", ".join(sorted({"compute_permutation", "best_permutation_key"} | ARGS_OF[name]))
            raise UserError(f"expected one of {expected}, found {unknown!r}", key=f"{key}.{name}")
        if name == "BSSEvalV4":
            _check_windows(args, f"{key}.{name}")
        if name == "PESQ" and sample_rate is not None:
            _check_pesq(args, sample_rate, f"{key}.{name}")
        found.append(Tester(name, permute, best, args))
    columns = [column for tester in found for column in metrics_of(tester)]
    if len({tester.name for tester in found}) != len(found) or len(set(columns)) != len(columns):
        raise UserError("duplicate tester: its columns would have the same names", key=key)
    return found


def metrics_of(tester: Tester) -> tuple[str, ...]:
    """The metrics of a tester: the columns that it may add to a score table."""
    return METRICS_OF[tester.name] if tester.user_metric is None else (tester.user_metric.column,)


def tester_names(testers: Sequence[Any] | Mapping[str, Any]) -> list[str]:
    """The names in test_config.testers, in any of the forms that `read_testers` reads."""
    return [name for name, _ in tester_entries(testers) if isinstance(name, str)]


def tester_entries(testers: Sequence[Any] | Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Name and arguments of every tester, as written."""
    for entry in [{name: args} for name, args in testers.items()] if isinstance(testers, Mapping) else testers:
        if isinstance(entry, Mapping):
            yield from entry.items()
        elif isinstance(entry, (list, tuple)) and len(entry) == 2:
            yield tuple(entry)
        else:
            yield entry, None


def _read_user_metric(metric: UserMetric, args: dict[str, Any], key: str) -> Tester:
    permute = bool(args.pop("compute_permutation", False))
    if metric.parameters is not None:
        for unknown in sorted(set(args) - set(metric.parameters)):
            expected = ", ".join(sorted({"compute_permutation", *metric.parameters}))
            raise UserError(f"expected one of {expected}, found {unknown!r}", key=key)
    return Tester(metric.name, permute, metric.column, args, metric)


def windows_in_samples(window: float | None, hop: float | None, sample_rate: int) -> tuple[int, int]:
    """The window and hop of BSSEvalV4 in samples.

    Args:
        window: Seconds; 1 by default. A number of SAMPLES_FROM or more is samples, as files before seconds had them.
        hop: As `window`, and samples too where the window is; by default the window.
        sample_rate: Sample rate in Hz.
    """
    window = 1.0 if window is None else window
    hop = window if hop is None else hop
    in_samples = window >= SAMPLES_FROM
    hop = hop if in_samples or hop >= SAMPLES_FROM else hop * sample_rate
    return round(window if in_samples else window * sample_rate), round(hop)


def _check_windows(args: Mapping[str, Any], key: str) -> None:
    for name in ("window", "hop"):
        value = args.get(name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
        if value is not None and not number:
            raise UserError(f"{name}: expected a number of seconds above 0, found {value!r}", key=key)


def _check_pesq(args: Mapping[str, Any], sample_rate: int, key: str) -> None:
    if sample_rate not in PESQ_MODES:
        raise UserError(f"expected a dataset_config.sample_rate of 8000 or 16000, found {sample_rate}", key=key)
    mode = args.get("mode", PESQ_MODES[sample_rate][0])
    if mode not in PESQ_MODES[sample_rate]:
        expected = " or ".join(PESQ_MODES[sample_rate])
        raise UserError(f"mode: expected {expected} at {sample_rate} Hz, found {mode!r}", key=key)
