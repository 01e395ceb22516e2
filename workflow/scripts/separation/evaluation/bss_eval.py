"""BSS Eval, versions 3 and 4, and the global SDR of MDX'21."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from separation.evaluation.ratios import MAX_DB, audible_channels, best_order, decibel, is_audible, nanmean, nanmedian
from separation.evaluation.scale_metrics import alone
from separation.experiment.testers import BSS_EVAL_METRICS, Tester, windows_in_samples

FILTER_LENGTH = 512  # samples; the distortion that a filter of this length explains counts as none
DELTA = 1e-7  # added to both energies of uSDR


def score_v4(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """BSS Eval v4 by museval: the median over windows, as in the SiSEC campaigns.

    A silent estimate has no score, and neither has a silent source. An item no longer than the filter has none at all:
    the filter would explain every error. `cSDR` is the SDR of windows of 1 s without overlap.
    """
    audible = [index for index, reference in enumerate(references) if is_audible(reference)]
    heard = np.array([bool(np.any(estimate)) for estimate in estimates])
    args = dict(tester.args)
    window, hop = windows_in_samples(args.pop("window", None), args.pop("hop", None), sample_rate)
    args |= {"window": window, "hop": hop}
    count = len(references)
    pairs = {metric: np.full((count, len(estimates)), np.nan) for metric in BSS_EVAL_METRICS}
    order = list(range(count))
    if audible and references.shape[-1] > args.get("filters_len", FILTER_LENGTH):
        if tester.compute_permutation:
            # every pair of source and estimate once; a pair's score does not depend on the other pairs
            for shift in range(len(estimates)):
                shifted = [(index + shift) % len(estimates) for index in range(count)]
                _score_order(pairs, references, estimates, shifted, audible, heard, args)
            order = best_order(pairs[tester.best_permutation_key])
            if len(estimates) > count:
                # windows in which one of the estimates is silent do not count, so that it matters which are chosen
                _score_order(pairs, references, estimates, order, audible, heard, args)
        else:
            _score_order(pairs, references, estimates, order, audible, heard, args)
    if len(audible) == 1:
        # no other source can interfere
        pairs["SIR"][:] = np.nan
    scores = [
        {metric: float(pairs[metric][source, estimate]) for metric in BSS_EVAL_METRICS}
        for source, estimate in enumerate(order)
    ]
    if window == hop == sample_rate:
        scores = [{**score, "cSDR": score["SDR"]} for score in scores]
    return order, scores


def _score_order(
    pairs: Mapping[str, np.ndarray],
    references: np.ndarray,
    estimates: np.ndarray,
    order: list[int],
    audible: list[int],
    heard: np.ndarray,
    args: Mapping[str, Any],
) -> None:
    """Writes the scores of one order of the estimates into `pairs`, each (sources, estimates)."""
    if not heard[[order[source] for source in audible]].any():
        return
    truths = references[audible]
    # museval refuses a silent estimate; its source's reference in its place leaves the scores of the others as they are
    guesses = np.stack(
        [
            estimates[order[source]] if heard[order[source]] else truths[position]
            for position, source in enumerate(audible)
        ]
    )
    found = _museval(truths, guesses, args)
    for position, source in enumerate(audible):
        if heard[order[source]]:
            for metric in BSS_EVAL_METRICS:
                median = nanmedian(found[metric][position])
                pairs[metric][source, order[source]] = np.clip(median, -MAX_DB, MAX_DB)


def _museval(references: np.ndarray, estimates: np.ndarray, args: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """museval's scores of estimates in order, (sources, windows) each; signals are (sources, channels, samples)."""
    # museval imports musdb, which fails where ffmpeg is missing; nussl_compat imports it without
    from separation.nussl_compat import nussl

    signals = np.stack([references, estimates])
    if np.any((signals.sum(axis=2) == 0) & (signals != 0).any(axis=2)):
        # museval takes signals whose channels cancel each other for silence. A rotation of the channels, which the
        # filters between all channels absorb, changes no score.
        signals = np.einsum("dc,ascn->asdn", _rotation(signals.shape[2]), signals)
    arrays = np.ascontiguousarray(signals.transpose(0, 1, 3, 2))
    scores = nussl.evaluation.bss_eval.museval.metrics.bss_eval(*arrays, compute_permutation=False, **args)
    return dict(zip(("SDR", "ISR", "SIR", "SAR"), scores, strict=False))


def _rotation(channels: int) -> np.ndarray:
    """An orthogonal matrix without zeros."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(channels, channels)))[0]


def score_v3(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """SDR and its improvement by BSS Eval v3 (bss_eval_sources) of whole items, the mean over channels."""
    if references.shape[-1] <= FILTER_LENGTH:
        nothing = dict.fromkeys(("V3-SDR", "V3-SDRi"), float("nan"))
        return list(range(len(references))), [dict(nothing) for _ in references]
    candidates = np.concatenate([estimates, mixture[None]])
    scores = np.full((references.shape[1], len(references), len(candidates)), np.nan)
    improvements = scores.copy()
    audible = audible_channels(references)
    for channel in range(references.shape[1]):
        without_gain = alone(references[:, channel], mixture[channel])
        for source in np.flatnonzero(audible[:, channel]):
            scores[channel, source] = filtered_sdr(references[source, channel], candidates[:, channel])
            if not without_gain[source]:
                improvements[channel, source] = scores[channel, source] - scores[channel, source, -1]
    pairs, gains = nanmean(scores, axis=0)[:, :-1], nanmean(improvements, axis=0)[:, :-1]
    order = list(range(len(references)))
    if tester.compute_permutation:
        order = best_order(pairs)
    return order, [
        {"V3-SDR": float(pairs[source, estimate]), "V3-SDRi": float(gains[source, estimate])}
        for source, estimate in enumerate(order)
    ]


def filtered_sdr(reference: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """The SDR of BSS Eval v3, bss_eval_sources, dB.

    E. Vincent, R. Gribonval, C. Fevotte: "Performance measurement in blind audio source separation", IEEE TASLP 14(4),
    2006: the target is the projection of the estimate on the reference delayed by 0 to FILTER_LENGTH - 1 samples.

    Args:
        reference: One channel, (samples,), longer than FILTER_LENGTH.
        estimates: (estimates, samples).

    Returns:
        (estimates,), limited to +-MAX_DB.
    """
    from scipy.fft import next_fast_len
    from scipy.linalg import toeplitz

    length = reference.size + FILTER_LENGTH - 1
    size = next_fast_len(length, real=True)
    spectrum = np.fft.rfft(reference, size)
    spectra = np.fft.rfft(estimates, size)
    own = np.fft.irfft(np.abs(spectrum) ** 2, size)[:FILTER_LENGTH]
    shared = np.fft.irfft(spectra * spectrum.conj(), size)[:, :FILTER_LENGTH]
    try:
        filters = np.linalg.solve(toeplitz(own), shared.T).T
    except np.linalg.LinAlgError:
        filters = np.linalg.lstsq(toeplitz(own), shared.T)[0].T
    targets = np.fft.irfft(np.fft.rfft(filters, size) * spectrum, size)[:, :length]
    noise = -targets
    noise[:, : reference.size] += estimates
    return decibel(np.square(targets).sum(axis=-1), np.square(noise).sum(axis=-1))


def score_usdr(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """The SDR of the Music Demixing Challenge 2021: energies over all channels and samples of an item."""
    pairs = np.array(
        [
            [_global_sdr(reference, estimate) for estimate in estimates]
            if is_audible(reference)
            else [np.nan] * len(estimates)
            for reference in references
        ]
    )
    order = best_order(pairs) if tester.compute_permutation else list(range(len(references)))
    return order, [{"uSDR": float(pairs[source, estimate])} for source, estimate in enumerate(order)]


def _global_sdr(reference: np.ndarray, estimate: np.ndarray) -> float:
    ratio = (np.square(reference).sum() + DELTA) / (np.square(reference - estimate).sum() + DELTA)
    return float(np.clip(10 * np.log10(ratio), -MAX_DB, MAX_DB))
