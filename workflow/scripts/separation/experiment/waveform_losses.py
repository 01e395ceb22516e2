"""Names, inputs and arguments of the losses on waveforms, without importing torch; a test compares them with theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: losses that are measured for each pair of estimate and reference: the arguments of each
WAVEFORM_LOSSES: dict[str, tuple[str, ...]] = {
    "ComplexSpectralLoss": ("n_fft", "hop_length", "magnitude_weight"),
    "L1SNRLoss": ("n_fft", "hop_length", "epsilon"),
    "LogWMSELoss": ("sample_rate",),
    "MultiResolutionSTFTLoss": ("n_ffts", "hop_lengths", "window_lengths"),
    "SNRLoss": (),
    "ThresholdedSNRLoss": ("max_snr",),
    "WaveformL1Loss": (),
    "WaveformMSELoss": (),
}
#: those that also read the mixture
READ_MIXTURE = ("LogWMSELoss", "ThresholdedSNRLoss")
#: losses around one of these, or around nussl's SISDRLoss, and the inner loss that they have by default
WRAPPERS = {"PermutationInvariantLoss": "L1Loss", "MixITLoss": "ThresholdedSNRLoss"}
_NUSSLS = {"SISDRLoss": ("scaling", "return_scaling", "zero_mean", "clip_min")}


@dataclass(frozen=True)
class LossEntry:
    """What an entry of `loss_function` names.

    Attributes:
        wrapper: PermutationInvariantLoss or MixITLoss around the loss; None for the loss itself.
        name: Class of the loss.
        arguments: Arguments of the loss.
    """

    wrapper: str | None
    name: str
    arguments: Mapping[str, Any]

    @classmethod
    def read(cls, name: str, arguments: Mapping[str, Any]) -> LossEntry | None:
        """The entry, if it is a loss on waveforms of this project; None for nussl's losses and the user's own."""
        if name in WAVEFORM_LOSSES:
            return cls(None, name, arguments)
        if name in WRAPPERS:
            inner = arguments.get("loss_function", WRAPPERS[name])
            if name == "MixITLoss" or inner in (*WAVEFORM_LOSSES, *_NUSSLS):
                return cls(name, inner, {key: value for key, value in arguments.items() if key != "loss_function"})
        return None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The output of the network (first), then keys of the batch."""
        return ("audio", "source_audio", *(("mix_audio",) if self.name in READ_MIXTURE else ()))

    @property
    def known_arguments(self) -> tuple[str, ...] | None:
        """The arguments of the loss; None for a name that is not known."""
        return {**WAVEFORM_LOSSES, **_NUSSLS}.get(self.name)
