"""What the report says of each metric: in a sentence, and its passport."""

from __future__ import annotations

from collections.abc import Sequence

from separation.experiment.testers import PASSPORTS

IN_WORDS = {
    "SI-SDR": "Scale-invariant signal-to-distortion ratio: the energy of the part of the estimate that is a scaled "
    "copy of the source, against all the rest. Higher is better; 0 dB means as much error as signal.",
    "SI-SDRi": "SI-SDR improvement: SI-SDR of the estimate minus SI-SDR of the mixture taken as the estimate. 0 dB is "
    "what doing nothing reaches.",
    "SI-SIR": "Scale-invariant signal-to-interference ratio: of the error, only what comes from the other sources.",
    "SI-SAR": "Scale-invariant signal-to-artifacts ratio: of the error, only what comes from no source. An untouched "
    "mixture has none, so that this is high where little was done.",
    "SD-SDR": "Scale-dependent SDR: as SI-SDR, but a wrong level counts as an error.",
    "SNR": "Signal-to-noise ratio: the energy of the source against that of estimate minus source, as they are.",
    "SRR": "Source-to-rescaled-source ratio: how far the level of the estimate is off.",
    "SDR": "Signal-to-distortion ratio of BSSEval v4: filters of 512 taps on the source are forgiven.",
    "ISR": "Image-to-spatial-distortion ratio of BSSEval v4.",
    "SIR": "Signal-to-interference ratio of BSSEval v4: only what comes from the other sources.",
    "SAR": "Signal-to-artifacts ratio of BSSEval v4: only what comes from no source.",
    "STOI": "Short-time objective intelligibility, 0 to 1: how much of the speech can be understood.",
    "PESQ": "Perceptual evaluation of speech quality, about 1 to 4.5: how good the speech sounds.",
}


def describe(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each metric its `words` ("" for one that has none) and the fields of its passport, as words."""
    found = {}
    for name in names:
        passport = vars(PASSPORTS[name]) if name in PASSPORTS else {}
        if name in IN_WORDS or passport:
            found[name] = {"words": IN_WORDS.get(name, ""), **{field: str(value) for field, value in passport.items()}}
    return found
