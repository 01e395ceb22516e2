"""Definitions of metrics, for the report and docs/metrics.md."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from separation.experiment.testers import UserMetric


@dataclass(frozen=True)
class MetricDefinition:
    """Definition of a metric, shown with its scores.

    Attributes:
        unit: Unit of the scores.
        definition: Definition in one sentence.
        source: Paper or document, and implementation.
        filter_length: Length of the allowed distortion filter, in samples.
        permutation: How estimates are assigned to sources.
        aggregation: How channels and windows are combined into the score of an item.
        direction: Whether a higher or a lower score is better.
        used_by: Papers and campaigns that state it.
    """

    unit: str
    definition: str
    source: str
    filter_length: str
    permutation: str
    aggregation: str
    direction: str = "higher is better"
    used_by: str = "-"


_LE_ROUX = 'Le Roux, Wisdom, Erdogan, Hershey: "SDR - half-baked or well done?", ICASSP 2019'
_ORDER = (
    "with compute_permutation, the order with the highest mean best_permutation_key ({}); otherwise the given order"
)


_SPEECH = (
    "papers on WSJ0-2mix, LibriMix and WHAM!, such as Conv-TasNet (Luo and Mesgarani 2019), SepFormer (Subakan et al. "
    "2021) and TF-GridNet (Wang et al. 2023)"
)


def _scale(definition: str, used_by: str = "-") -> MetricDefinition:
    return MetricDefinition(
        "dB", definition, f"{_LE_ROUX}; computed as nussl.evaluation.BSSEvalScale", "1 (a gain)",
        _ORDER.format("SI-SDR"), "mean over channels; zero-mean signals; limited to +-100 dB", used_by=used_by,
    )  # fmt: skip


def _improvement(metric: str, used_by: str = "-") -> MetricDefinition:
    return _scale(f"{metric} of the estimate minus {metric} of the mixture; none for a source alone.", used_by)


def _bss_eval(definition: str) -> MetricDefinition:
    return MetricDefinition(
        "dB",
        definition,
        'BSS Eval v4: Stoeter, Liutkus, Ito: "The 2018 Signal Separation Evaluation Campaign", LVA/ICA 2018; computed '
        "by museval",
        "512",
        _ORDER.format("SDR"),
        "median over windows (by default of 1 s without overlap; see window and hop), all channels together; windows "
        "in which a source or an estimate is silent do not count; limited to +-100 dB",
        used_by="the SiSEC campaigns (Stoeter et al. 2018)",
    )


def _bss_eval_v3(definition: str) -> MetricDefinition:
    return MetricDefinition(
        "dB",
        definition,
        'BSS Eval v3, bss_eval_sources: Vincent, Gribonval, Fevotte: "Performance Measurement in Blind Audio Source '
        'Separation", IEEE TASLP 14(4), 2006; equal to mir_eval.separation',
        "512",
        _ORDER.format("V3-SDR"),
        "the whole item; mean over channels; limited to +-100 dB",
        used_by="deep clustering (Hershey et al. 2016) and " + _SPEECH,
    )


def _stoi(definition: str, source: str) -> MetricDefinition:
    return MetricDefinition(
        "0 to 1", definition, f"{source}; computed by pystoi", "-", _ORDER.format("STOI"),
        "mean over the channels in which the source sounds; resampled to 10 kHz, silent frames of the source removed",
        used_by="papers on speech enhancement",
    )  # fmt: skip


#: definition by metric
METRIC_DEFINITIONS: Mapping[str, MetricDefinition] = {
    "SI-SDR": _scale(
        "Energy of the optimally scaled source relative to the energy of the rest of the estimate.", _SPEECH
    ),
    "SI-SDRi": _improvement("SI-SDR", _SPEECH),
    "SI-SIR": _scale("As SI-SDR, relative to the part of the error that the other sources explain (interference)."),
    "SI-SIRi": _improvement("SI-SIR"),
    "SI-SAR": _scale("As SI-SDR, relative to the part of the error that no source explains (artifacts)."),
    "SD-SDR": _scale("Scale-dependent SDR: as SI-SDR, but a wrong gain of the estimate lowers the score."),
    "SD-SDRi": _improvement("SD-SDR"),
    "SNR": _scale("Energy of the source relative to the energy of estimate minus source."),
    "SNRi": _improvement("SNR"),
    "SRR": _scale("Energy of the optimally scaled source relative to the energy of its difference from the source."),
    "LEAKAGE": MetricDefinition(
        "dB of the mixture",
        "Energy of the estimate of a silent source relative to the energy of the mixture: what leaks into it.",
        "defined here",
        "-",
        _ORDER.format("SI-SDR"),
        "energies over all channels; zero-mean signals; limited to +-100 dB; only for silent sources",
        "lower is better",
    ),
    "SDR": _bss_eval("Energy of the source relative to all distortion that a filter of the sources does not explain."),
    "ISR": _bss_eval("Energy of the source relative to its spatial and filtering distortion."),
    "SIR": _bss_eval("Energy of the filtered source relative to the interference of the other sources."),
    "SAR": _bss_eval("Energy of everything that filtered sources explain, relative to artifacts."),
    "cSDR": MetricDefinition(
        "dB",
        "Chunk-level SDR: SDR of BSS Eval v4 in windows of 1 s without overlap.",
        "BSS Eval v4, as SDR; there if BSSEvalV4 has such windows, as by default",
        "512",
        _ORDER.format("SDR"),
        "median over windows; over a data set, the median over songs of each source, and the mean of the sources",
        used_by="papers on MUSDB18, such as Open-Unmix (Stoeter et al. 2019), Hybrid Demucs (Defossez 2021), BSRNN "
        "(Luo and Yu 2023), HT Demucs (Rouard et al. 2023) and BS-RoFormer (Lu et al. 2023)",
    ),
    "V3-SDR": _bss_eval_v3("SDR of BSS Eval v3: what a filter of the source does not explain counts as distortion."),
    "V3-SDRi": _bss_eval_v3("V3-SDR of the estimate minus V3-SDR of the mixture; none for a source alone."),
    "uSDR": MetricDefinition(
        "dB",
        "Utterance-level (global) SDR: energy of the source relative to the energy of estimate minus source.",
        'Mitsufuji et al.: "Music Demixing Challenge 2021", Frontiers in Signal Processing 1, 2022, with 1e-7 added to '
        "both energies",
        "0 (no gain)",
        _ORDER.format("uSDR"),
        "energies over all channels and samples of the item; over a data set, the mean over songs",
        used_by="the Music Demixing Challenge 2021 and papers on MUSDB18-HQ such as BSRNN (Luo and Yu 2023)",
    ),
    "STOI": _stoi(
        "Short-time objective intelligibility: mean correlation of third-octave envelopes over 384 ms.",
        'Taal, Hendriks, Heusdens, Jensen: "An Algorithm for Intelligibility Prediction of Time-Frequency Weighted '
        'Noisy Speech", IEEE TASLP 19(7), 2011',
    ),
    "ESTOI": _stoi(
        "Extended STOI, which does not assume independent frequency bands.",
        'Jensen, Taal: "An Algorithm for Predicting the Intelligibility of Speech Masked by Modulated Noise Maskers", '
        "IEEE/ACM TASLP 24(11), 2016",
    ),
    "PESQ": MetricDefinition(
        "MOS-LQO, 1 to 4.6",
        "Perceptual evaluation of speech quality: predicted mean opinion score.",
        "ITU-T P.862, P.862.1 (narrow band) and P.862.2 (wide band); computed by pesq",
        "-",
        _ORDER.format("PESQ"),
        "mean over the channels in which the source sounds; no score where no speech is detected",
        used_by="papers on speech enhancement",
    ),
}  # fmt: skip

#: explanations for readers who do not know the metric
EXPLANATIONS: Mapping[str, str] = {
    "SI-SDR": "Scale-invariant signal-to-distortion ratio: the energy of the part of the estimate that is a scaled "
    "copy of the source, relative to all the rest. Higher is better; at 0 dB there is as much error as signal.",
    "SI-SDRi": "SI-SDR improvement: SI-SDR of the estimate minus SI-SDR of the mixture. Leaving the mixture as it is "
    "gives 0 dB.",
    "SI-SIR": "Scale-invariant signal-to-interference ratio: counts only errors from the other sources.",
    "SI-SAR": "Scale-invariant signal-to-artifacts ratio: counts only errors that come from no source. An unprocessed "
    "mixture has none, so the value is high where little was changed.",
    "SD-SDR": "Scale-dependent SDR: as SI-SDR, but a wrong level counts as an error.",
    "SNR": "Signal-to-noise ratio: the energy of the source relative to the energy of estimate minus source, without "
    "rescaling.",
    "SRR": "Source-to-rescaled-source ratio: how accurate the level of the estimate is.",
    "SDR": "Signal-to-distortion ratio of BSSEval v4: ignores errors that a filter of 512 taps on the source explains.",
    "ISR": "Image-to-spatial-distortion ratio of BSSEval v4.",
    "SIR": "Signal-to-interference ratio of BSSEval v4: counts only errors from the other sources.",
    "SAR": "Signal-to-artifacts ratio of BSSEval v4: counts only errors that come from no source.",
    "LEAKAGE": "How loud the estimate of a silent source is, relative to the mixture. Lower is better; the mixture "
    "itself has 0 dB.",
    "cSDR": "Chunk-level SDR, the number that papers on MUSDB18 state: the median over windows of 1 s, then songs.",
    "uSDR": "Global SDR of the Music Demixing Challenge 2021, energies over both channels of the whole song.",
    "V3-SDR": "Signal-to-distortion ratio of BSS Eval v3: ignores errors that a filter of 512 taps on the source "
    "explains.",
    "V3-SDRi": "SDR improvement of BSS Eval v3, the SDRi that papers on speech separation state.",
    "STOI": "Short-time objective intelligibility, 0 to 1: how much of the speech can be understood.",
    "PESQ": "Perceptual evaluation of speech quality, about 1 to 4.5: how good the speech sounds.",
}


def user_metric_definition(metric: UserMetric) -> MetricDefinition:
    """The definition of a metric of the user's own."""
    return MetricDefinition(
        metric.unit,
        metric.definition,
        metric.source or f"{metric.name} in {metric.file.name}",
        "-",
        f"the order of the first built-in tester; with compute_permutation, the order with the best mean "
        f"{metric.column}",
        f"as {metric.name} computes it",
        "higher is better" if metric.higher_is_better else "lower is better",
    )


def all_definitions(user_metrics: Mapping[str, Mapping[str, str]]) -> dict[str, MetricDefinition]:
    """The definitions of the built-in metrics and of the user's own, which score tables hold, by column."""
    return {**METRIC_DEFINITIONS, **{name: MetricDefinition(**fields) for name, fields in user_metrics.items()}}


def explain_metrics(
    names: Sequence[str], definitions: Mapping[str, MetricDefinition] = METRIC_DEFINITIONS
) -> dict[str, dict[str, str]]:
    """The `explanation` ("" if there is none) and the fields of the definition of the known metrics among `names`."""
    found = {}
    for name in names:
        definition = vars(definitions[name]) if name in definitions else {}
        if name in EXPLANATIONS or definition:
            own = name not in METRIC_DEFINITIONS and name in definitions
            explanation = "{definition} Unit: {unit}; {direction}.".format(**definition) if own else ""
            found[name] = {"explanation": EXPLANATIONS.get(name, explanation), **definition}
    return found


def definitions_section() -> str:
    """The section "Definitions" of docs/metrics.md."""
    lines = ["| metric | unit | definition |", "|---|---|---|"]
    lines += [f"| `{name}` | {metric.unit} | {metric.definition} |" for name, metric in METRIC_DEFINITIONS.items()]
    shared: dict[tuple[str, ...], list[str]] = {}
    for name, metric in METRIC_DEFINITIONS.items():
        shared.setdefault(tuple(vars(metric).values())[2:], []).append(f"`{name}`")
    titles = [field.name.replace("_", " ").capitalize() for field in fields(MetricDefinition)][2:]
    for values, names in shared.items():
        lines += ["", f"{', '.join(names)}:", ""]
        items = [
            f"- {title}: {value}."
            for title, value in zip(titles, values, strict=True)
            if value not in ("-", "higher is better")
        ]
        lines += [textwrap.fill(item, 100, subsequent_indent="  ", break_on_hyphens=False) for item in items]
    return "\n".join(lines)


if __name__ == "__main__":
    print(definitions_section())
