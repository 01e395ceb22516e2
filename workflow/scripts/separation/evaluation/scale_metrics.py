"""Scale-invariant and scale-dependent ratios, and the leakage into silent sources."""

from __future__ import annotations

import numpy as np

from separation.evaluation.ratios import MAX_DB, SILENCE_POWER, best_order, decibel, is_audible, nanmean
from separation.experiment.testers import IMPROVEMENTS, SCALE_METRICS, Tester

# A mixture that equals a source to this many dB is that source alone; where all other sources are silent, less will do,
# because a file of 16 bits rounds
ALONE_DB = 60.0
ALONE_AMONG_SILENT_DB = 30.0


def scale_metrics(references: np.ndarray, estimates: np.ndarray) -> dict[str, np.ndarray]:
    """SI-SDR, SI-SIR, SI-SAR, SD-SDR, SNR and SRR in dB of every estimate as an estimate of every reference.

    Args:
        references: One channel, shape (sources, samples).
        estimates: Shape (estimates, samples). The means of all signals are removed first.

    Returns:
        For each metric an array (estimates, sources). The column of a silent reference is NaN, and so is SI-SIR where
        all other references are silent.
    """
    references = references - references.mean(axis=-1, keepdims=True)
    estimates = estimates - estimates.mean(axis=-1, keepdims=True)
    samples = references.shape[-1]
    energy = _energy(references)
    audible = energy > SILENCE_POWER * samples
    total = _energy(estimates)[:, None]
    shared = estimates @ references.T  # (estimates, sources)
    safe = np.where(audible, energy, 1.0)
    alpha = shared / safe
    target = alpha**2 * safe
    # the residual is summed over samples: at 60 dB and more, total - target would be noise
    residual = np.stack([_energy(estimates - a[:, None] * r) for a, r in zip(alpha.T, references, strict=True)], 1)
    error = np.stack([_energy(estimates - r) for r in references], 1)

    # the part of the residual in the space of the audible references is interference, the rest artifacts
    basis = references[audible]
    interference = np.zeros_like(target)
    if len(basis):
        inverse = np.linalg.pinv(basis @ basis.T, hermitian=True)
        projected = (estimates @ basis.T)[:, None, :] - alpha[..., None] * (references @ basis.T)
        interference = np.einsum("esr,rq,esq->es", projected, inverse, projected)
    artifacts = np.maximum(residual - interference, 0.0)

    silent_estimate = total <= SILENCE_POWER * samples
    target = np.where(silent_estimate, 0.0, target)
    snr = decibel(np.broadcast_to(energy, error.shape), error)
    scale = decibel(alpha**2, np.ones_like(alpha))
    found = {
        "SI-SDR": decibel(target, residual),
        "SI-SIR": decibel(target, np.maximum(interference, 0.0)),
        "SI-SAR": decibel(target, artifacts),
        "SD-SDR": np.clip(snr + scale, -MAX_DB, MAX_DB),
        "SNR": snr,
        # 1 / (1 - 1/alpha)^2, as in nussl
        "SRR": decibel(alpha**2, (alpha - 1.0) ** 2),
    }
    if len(basis) < 2:
        found["SI-SIR"] = np.full_like(target, np.nan)
    return {name: np.where(audible, values, np.nan) for name, values in found.items()}


def alone(references: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Which sources are the whole mixture, so that no estimate can improve on it.

    Args:
        references: One channel, (sources, samples).
        mixture: The same channel of the mixture, (samples,).

    Returns:
        (sources,) of bool; False for silent sources.
    """
    level = scale_metrics(references, mixture[None])["SI-SDR"][0]
    audible = ~np.isnan(level)
    among_silent = len(references) > 1 and audible.sum() == 1
    return audible & (np.nan_to_num(level) >= (ALONE_AMONG_SILENT_DB if among_silent else ALONE_DB))


def leakage(references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """What leaks into silent sources: the energy of an estimate relative to that of the mixture, dB.

    Args:
        references: (sources, channels, samples).
        estimates: (estimates, channels, samples).
        mixture: (channels, samples). The means of all channels are removed first.

    Returns:
        (estimates, sources), limited to +-MAX_DB; NaN for audible sources, and for all if the mixture is silent.
    """
    found = np.full((len(estimates), len(references)), np.nan)
    if is_audible(mixture):
        # the sum over channels of the variance over samples
        level = decibel(np.var(estimates, axis=-1).sum(-1), np.var(mixture, axis=-1).sum() * np.ones(len(estimates)))
        for source, reference in enumerate(references):
            if not is_audible(reference):
                found[:, source] = level
    return found


def _energy(signals: np.ndarray) -> np.ndarray:
    """The sum of squares over the last of two axes."""
    return np.einsum("st,st->s", signals, signals)


def score_scale(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """All metrics of SCALE_METRICS; the mixture is scored as another estimate.

    SI-SAR has no improvement: a mixture has no artifacts, so its own SI-SAR is infinite except for rounding.
    """
    channels = []
    for channel in range(references.shape[1]):
        found = scale_metrics(references[:, channel], np.concatenate([estimates[:, channel], mixture[None, channel]]))
        without_gain = alone(references[:, channel], mixture[channel])
        for name, improvement in IMPROVEMENTS.items():
            found[improvement] = np.where(without_gain, np.nan, found[name] - found[name][-1:])
        channels.append(found)
    pairs = {name: nanmean([channel[name] for channel in channels], axis=0)[:-1] for name in channels[0]}
    if not tester.args.get("compute_sir_sar", True):
        for name in ("SI-SIR", "SI-SIRi", "SI-SAR"):
            pairs[name] = np.full_like(pairs["SNR"], np.nan)
    pairs["LEAKAGE"] = leakage(references, estimates, mixture)
    order = list(range(len(references)))
    if tester.compute_permutation:
        # an improvement is its metric less a constant of the source, and has no value for a source alone
        key = tester.best_permutation_key.removesuffix("i")
        order = best_order(pairs["SI-SDR" if np.isnan(pairs[key]).all() else key].T)
    return order, [
        {name: float(pairs[name][estimate, source]) for name in SCALE_METRICS} for source, estimate in enumerate(order)
    ]
