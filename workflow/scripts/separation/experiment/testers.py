"""The testers of test_config: their metrics and arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from separation.errors import UserError

SCALE_METRICS = (
    "SI-SDR", "SI-SDRi", "SI-SIR", "SI-SIRi", "SI-SAR", "SD-SDR", "SD-SDRi", "SNR", "SNRi", "SRR",
)  # fmt: skip
BSS_EVAL_METRICS = ("SDR", "ISR", "SIR", "SAR")
METRICS_OF = {
    "BSSEvalScale": SCALE_METRICS,
    "BSSEvalV4": BSS_EVAL_METRICS,
    "STOI": ("STOI", "ESTOI"),
    "PESQ": ("PESQ",),
}
DEFAULT_KEY = {"BSSEvalScale": "SI-SDR", "BSSEvalV4": "SDR", "STOI": "STOI", "PESQ": "PESQ"}
ARGS_OF = {
    "BSSEvalScale": {"compute_sir_sar"},
    "BSSEvalV4": {"window", "hop", "filters_len", "framewise_filters", "bsseval_sources_version"},
    "STOI": {"extended"},
    "PESQ": {"mode"},
}
# ITU-T P.862 is defined at two rates, wide-band at one
PESQ_MODES = {8000: ("nb",), 16000: ("wb", "nb")}


@dataclass(frozen=True)
class Tester:
    """One entry of test_config.testers.

    Attributes:
        name: BSSEvalScale, BSSEvalV4, STOI or PESQ.
        compute_permutation: Whether estimates may be in any order; otherwise the i-th estimate is of the i-th source.
        best_permutation_key: Metric whose mean over the sources decides the order.
        args: Further arguments of the evaluator (compute_sir_sar; window, hop, mode, ... of museval; extended; mode).
    """

    name: str
    compute_permutation: bool
    best_permutation_key: str
    args: Mapping[str, Any]


def read_testers(testers: Sequence[Any] | Mapping[str, Any], sample_rate: int | None = None) -> list[Tester]:
    """Reads test_config.testers: a list of {name: args}, of names, of [name, args], or one mapping {name: args, ...}.

    Args:
        testers: Value of test_config.testers.
        sample_rate: Sample rate of the data in Hz, for metrics that are defined only at some rates.

    Raises:
        UserError: A tester or an argument is unknown, best_permutation_key is not one of the tester's metrics, or a
            metric is not defined at the sample rate.
    """
    key = "test_config.testers"
    entries = [{name: args} for name, args in testers.items()] if isinstance(testers, Mapping) else list(testers)
    found = []
    for entry in entries:
        pairs = list(entry.items()) if isinstance(entry, Mapping) else [(entry, {})]
        if isinstance(entry, (list, tuple)) and len(entry) == 2:
            pairs = [tuple(entry)]
        for name, args in pairs:
            if name not in METRICS_OF or not isinstance(args or {}, Mapping):
                raise UserError(
                    f"expected {{name: args}} with name one of {', '.join(METRICS_OF)}, found {entry}", key=key
                )
            args = dict(args or {})
            best = args.pop("best_permutation_key", None) or DEFAULT_KEY[name]
            if best not in METRICS_OF[name]:
                expected = ", ".join(METRICS_OF[name])
                raise UserError(
                    f"best_permutation_key: expected one of {expected}, found {best!r}", key=f"{key}.{name}"
                )
            permute = bool(args.pop("compute_permutation", False))
            for unknown in sorted(set(args) - ARGS_OF[name]):
                expected = ", ".join(sorted({"compute_permutation", "best_permutation_key"} | ARGS_OF[name]))
                raise UserError(f"expected one of {expected}, found {unknown!r}", key=f"{key}.{name}")
            if name == "PESQ" and sample_rate is not None:
                _check_pesq(args, sample_rate, f"{key}.{name}")
            found.append(Tester(name, permute, best, args))
    if len({tester.name for tester in found}) != len(found):
        raise UserError("duplicate tester: its columns would have the same names", key=key)
    return found


def _check_pesq(args: Mapping[str, Any], sample_rate: int, key: str) -> None:
    if sample_rate not in PESQ_MODES:
        raise UserError(f"expected a dataset_config.sample_rate of 8000 or 16000, found {sample_rate}", key=key)
    mode = args.get("mode", PESQ_MODES[sample_rate][0])
    if mode not in PESQ_MODES[sample_rate]:
        expected = " or ".join(PESQ_MODES[sample_rate])
        raise UserError(f"mode: expected {expected} at {sample_rate} Hz, found {mode!r}", key=key)
