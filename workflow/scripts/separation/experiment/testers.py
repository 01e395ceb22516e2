"""What test_config.testers may ask for, and what each metric means."""

from __future__ import annotations

from collections.abc import Mapping
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
class Passport:
    """What a metric is: shown wherever its numbers are.

    Attributes:
        unit: of the numbers.
        definition: in one sentence.
        source: the paper or document, and the implementation.
        filter_length: of the distortion filter that the metric allows, in samples.
        permutation: how estimates find their sources.
        aggregation: how an item's number comes from channels and windows.
    """

    unit: str
    definition: str
    source: str
    filter_length: str
    permutation: str
    aggregation: str


_LE_ROUX = 'Le Roux, Wisdom, Erdogan, Hershey: "SDR - half-baked or well done?", ICASSP 2019'
_OWN_ORDER = "with compute_permutation the order with the highest mean of best_permutation_key ({}); else as given"
_OF_CHANNELS = "mean over channels"


def _scale(definition: str) -> Passport:
    return Passport(
        "dB", definition, f"{_LE_ROUX}; computed as nussl.evaluation.BSSEvalScale", "1 (a gain)",
        _OWN_ORDER.format("SI-SDR"), f"{_OF_CHANNELS}; means removed; within +-100 dB",
    )  # fmt: skip


def _improvement(metric: str) -> Passport:
    return _scale(f"{metric} of the estimate minus {metric} of the mixture taken for the estimate.")


def _bss_eval(definition: str) -> Passport:
    return Passport(
        "dB",
        definition,
        'BSS Eval v4: Stoeter, Liutkus, Ito: "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018; computed '
        "by museval through nussl.evaluation.BSSEvalV4",
        "512",
        _OWN_ORDER.format("SDR"),
        "median over windows (88,200 samples every 66,150, unless window and hop say otherwise), channels together",
    )


def _stoi(definition: str, source: str) -> Passport:
    return Passport(
        "0 to 1", definition, f"{source}; computed by pystoi", "-", _OWN_ORDER.format("STOI"),
        f"{_OF_CHANNELS}; resampled to 10 kHz, silent frames of the source left out",
    )  # fmt: skip


#: metric -> what it is
PASSPORTS: Mapping[str, Passport] = {
    "SI-SDR": _scale("Energy of the source as it is in the estimate, at its best gain, over that of all the rest."),
    "SI-SDRi": _improvement("SI-SDR"),
    "SI-SIR": _scale("Like SI-SDR, against that part of the rest which the other sources explain: interference."),
    "SI-SIRi": _improvement("SI-SIR"),
    "SI-SAR": _scale("Like SI-SDR, against that part of the rest which no source explains: artifacts."),
    "SD-SDR": _scale("SNR, lowered by the gain that the estimate lacks or has too much: scale-dependent SDR."),
    "SD-SDRi": _improvement("SD-SDR"),
    "SNR": _scale("Energy of the source over that of estimate minus source."),
    "SNRi": _improvement("SNR"),
    "SRR": _scale("Energy of the source at its best gain over that of what this gain is off by."),
    "SDR": _bss_eval("Source to all distortion that a filter of the sources does not explain."),
    "ISR": _bss_eval("Source to its spatial and filter distortion."),
    "SIR": _bss_eval("Filtered source to interference of the other sources."),
    "SAR": _bss_eval("Everything that filtered sources explain to artifacts."),
    "STOI": _stoi(
        "Short-time objective intelligibility: mean correlation of third-octave envelopes over 384 ms.",
        'Taal, Hendriks, Heusdens, Jensen: "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted '
        'Noisy Speech", IEEE TASLP 19(7), 2011',
    ),
    "ESTOI": _stoi(
        "Extended STOI, which does not take the frequency bands for independent.",
        'Jensen, Taal: "An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated Noise Maskers", '
        "IEEE/ACM TASLP 24(11), 2016",
    ),
    "PESQ": Passport(
        "MOS-LQO, 1 to 4.6",
        "Perceptual evaluation of speech quality: predicted mean opinion score.",
        "ITU-T P.862, P.862.1 (narrow band) and P.862.2 (wide band); computed by pesq",
        "-",
        _OWN_ORDER.format("PESQ"),
        f"{_OF_CHANNELS}; no score where it finds no speech",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tester:
    """One entry of test_config.testers.

    Attributes:
        name: BSSEvalScale, BSSEvalV4, STOI or PESQ.
        compute_permutation: whether estimates may stand in any order; else the i-th estimate is of the i-th source.
        best_permutation_key: the metric whose mean over the sources decides the order.
        args: what else goes to the evaluator (compute_sir_sar; window, hop, mode, ... of museval; extended; mode).
    """

    name: str
    compute_permutation: bool
    best_permutation_key: str
    args: Mapping[str, Any]


def read_testers(test_config: Mapping[str, Any], sample_rate: int | None = None) -> list[Tester]:
    """Reads test_config.testers: a list of {name: args}, of names, of [name, args], or one mapping {name: args, ...}.

    Args:
        test_config: of a point.
        sample_rate: of the data in Hz, for metrics that are defined at few rates.

    Raises:
        UserError: an unknown tester, an unknown metric as best_permutation_key, a rate at which a metric is not
            defined, or something else than a tester.
    """
    key = "test_config.testers"
    entries = test_config.get("testers") or [{"BSSEvalScale": {"compute_permutation": True}}]
    entries = [{name: args} for name, args in entries.items()] if isinstance(entries, Mapping) else list(entries)
    testers = []
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
            testers.append(Tester(name, permute, best, args))
    if len({tester.name for tester in testers}) != len(testers):
        raise UserError("expected each tester once: their columns have the same names", key=key)
    return testers


def _check_pesq(args: Mapping[str, Any], sample_rate: int, key: str) -> None:
    if sample_rate not in PESQ_MODES:
        raise UserError(f"expected a dataset_config.sample_rate of 8000 or 16000, found {sample_rate}", key=key)
    mode = args.get("mode", PESQ_MODES[sample_rate][0])
    if mode not in PESQ_MODES[sample_rate]:
        expected = " or ".join(PESQ_MODES[sample_rate])
        raise UserError(f"mode: expected {expected} at {sample_rate} Hz, found {mode!r}", key=key)


def passport_table() -> str:
    """The table of docs/metrics.md."""
    lines = [
        "| metric | unit | definition | source | filter | order of estimates | of an item |",
        "|---|---|---|---|---|---|---|",
    ]
    for metric, passport in PASSPORTS.items():
        lines.append(f"| `{metric}` | " + " | ".join(vars(passport).values()) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(passport_table())
