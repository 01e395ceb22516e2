"""Scores of estimated sources against their references.

Scale-invariant and scale-dependent ratios follow J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey: "SDR - half-baked or
well done?", ICASSP 2019, as nussl.evaluation.BSSEvalScale computes them; here all pairs of estimate and reference are
scored at once from a few inner products. BSS Eval version 4 (F.-R. Stoeter, A. Liutkus, N. Ito: "The 2018 signal
separation evaluation campaign", 2018) is nussl's and museval's own.

Edge cases, where nussl returns NaN or infinities, or fails:
- A silent reference (below SILENCE_POWER after its mean is removed) has no scores: its metrics are NaN, and the
  permutation ignores it. The other sources are scored as if it did not exist.
- Ratios are limited to +-MAX_DB: a perfect estimate has an SI-SDR of MAX_DB instead of infinity, and a silent estimate
  of an audible source has -MAX_DB. A model cannot gain by returning silence.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from separation.errors import UserError
from separation.experiment.testers import BSS_EVAL_METRICS, PESQ_MODES, SCALE_METRICS, Tester

MAX_DB = 100.0  # dB, beyond the range of int16 audio
SILENCE_POWER = 1e-12  # mean power at full scale 1.0: -120 dB, below one step of 16 bits


@dataclass(frozen=True)
class ItemScores:
    """Scores of one item.

    Attributes:
        scores: source -> metric -> value; see `experiment.metric_definitions` for units, channels and windows.
        assignment: source -> index of its estimate, according to the first tester.
    """

    scores: dict[str, dict[str, float]]
    assignment: dict[str, int]


def score_item(
    sources: Mapping[str, np.ndarray],
    estimates: Sequence[np.ndarray],
    mixture: np.ndarray,
    *,
    testers: Sequence[Tester],
    sample_rate: int,
) -> ItemScores:
    """Scores one item with every tester.

    Args:
        sources: name -> true source, the reference: (channels, samples).
        estimates: Estimates (channels, samples), at least as many as sources. With compute_permutation there may be
            more; the best ones are used.
        mixture: Mixture (channels, samples); improvements (names ending in i) are relative to its own scores.
        testers: See `read_testers`.
        sample_rate: Sample rate in Hz.

    Raises:
        UserError: Fewer estimates than sources, or a different number without compute_permutation.
        ValueError: Shapes do not match.
    """
    references = np.stack([np.asarray(source, dtype=np.float64) for source in sources.values()])
    estimates = np.stack([np.asarray(estimate, dtype=np.float64) for estimate in estimates])
    mixture = np.asarray(mixture, dtype=np.float64)
    if references.shape[1:] != mixture.shape or estimates.shape[1:] != mixture.shape:
        raise ValueError(f"references {references.shape}, estimates {estimates.shape}, mixture {mixture.shape}")
    scores: list[dict[str, float]] = [{} for _ in references]
    assignment: list[int] | None = None
    for tester in testers:
        found, count = len(estimates), len(references)
        if found < count or (found > count and not tester.compute_permutation):
            raise UserError(
                f"expected {count} estimates, as many as sources, found {found}",
                key="algorithm_config.args.num_sources",
            )
        order, values = _SCORE_OF[tester.name](references, estimates, mixture, tester, sample_rate)
        assignment = assignment or order
        for row, value in zip(scores, values, strict=True):
            row.update(value)
    return ItemScores(dict(zip(sources, scores, strict=True)), dict(zip(sources, assignment or (), strict=True)))


def scale_metrics(references: np.ndarray, estimates: np.ndarray) -> dict[str, np.ndarray]:
    """SI-SDR, SI-SIR, SI-SAR, SD-SDR, SNR and SRR in dB of every estimate as an estimate of every reference.

    Args:
        references: One channel, shape (sources, samples).
        estimates: Shape (estimates, samples). The means of all signals are removed first.

    Returns:
        For each metric an array (estimates, sources). The column of a silent reference is NaN.
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
    snr = _decibel(np.broadcast_to(energy, error.shape), error)
    scale = _decibel(alpha**2, np.ones_like(alpha))
    found = {
        "SI-SDR": _decibel(target, residual),
        "SI-SIR": _decibel(target, np.maximum(interference, 0.0)),
        "SI-SAR": _decibel(target, artifacts),
        "SD-SDR": np.clip(snr + scale, -MAX_DB, MAX_DB),
        "SNR": snr,
        # 1 / (1 - 1/alpha)^2, as in nussl
        "SRR": _decibel(alpha**2, (alpha - 1.0) ** 2),
    }
    return {name: np.where(audible, values, np.nan) for name, values in found.items()}


def _energy(signals: np.ndarray) -> np.ndarray:
    """The sum of squares over the last of two axes."""
    return np.einsum("st,st->s", signals, signals)


def _score_scale(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """All metrics of SCALE_METRICS; the mixture is scored as another estimate.

    SI-SAR has no improvement: a mixture has no artifacts, so its own SI-SAR is infinite except for rounding.
    """
    channels = [
        scale_metrics(references[:, channel], np.concatenate([estimates[:, channel], mixture[None, channel]]))
        for channel in range(references.shape[1])
    ]
    pairs = {name: _nanmean([channel[name] for channel in channels], axis=0) for name in channels[0]}
    if not tester.args.get("compute_sir_sar", True):
        pairs["SI-SIR"] = pairs["SI-SAR"] = np.full_like(pairs["SNR"], np.nan)
    for name in ("SI-SDR", "SI-SIR", "SD-SDR", "SNR"):
        pairs[f"{name}i"] = pairs[name] - pairs[name][-1:]
    order = list(range(len(references)))
    if tester.compute_permutation:
        # the mean over sources is a sum over pairs, so the best permutation is an assignment problem
        value = np.nan_to_num(pairs[tester.best_permutation_key][:-1].T, nan=0.0)
        order = best_assignment(value)
    return order, [
        {name: float(pairs[name][estimate, source]) for name in SCALE_METRICS} for source, estimate in enumerate(order)
    ]


def best_assignment(value: np.ndarray) -> list[int]:
    """The estimate of each source so that the sum of values is greatest: that of scipy.optimize.linear_sum_assignment.

    Args:
        value: Finite values, (sources, estimates), at least as many estimates as sources.
    """
    sources, estimates = value.shape
    # few orders are tried one by one: importing scipy.optimize takes longer than scoring a small test set
    if math.perm(estimates, sources) <= 24:
        orders = np.array(list(permutations(range(estimates), sources)))
        totals = value[np.arange(sources), orders].sum(axis=1)
        best = totals.max()
        near = totals >= best - 1e-9 * max(1.0, float(np.abs(value).max()))
        if near.sum() == 1:
            return orders[int(near.argmax())].tolist()
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(value, maximize=True)[1].tolist()


def _score_v4(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """BSS Eval v4 by nussl and museval, the median over windows as in the SiSEC campaigns."""
    from separation.nussl_compat import nussl

    audible = [i for i, reference in enumerate(references) if _is_audible(reference)]
    nothing = dict.fromkeys(BSS_EVAL_METRICS, float("nan"))
    signals = [
        nussl.AudioSignal(audio_data_array=array, sample_rate=sample_rate) for array in (*references, *estimates)
    ]
    truths, guesses = signals[: len(references)], signals[len(references) :]
    candidates = [list(range(len(references)))]
    if tester.compute_permutation:
        chosen = combinations(range(len(estimates)), len(references))
        candidates = [list(order) for combination in chosen for order in permutations(combination)]
    best: tuple[float, list[int], list[dict[str, float]]] | None = None
    for order in candidates:
        values = [dict(nothing) for _ in references]
        if audible:
            evaluator = nussl.evaluation.BSSEvalV4(
                [truths[i] for i in audible],
                [guesses[order[i]] for i in audible],
                source_labels=[str(i) for i in audible],
                **tester.args,
            )
            found = evaluator.evaluate()
            for i in audible:
                values[i] = {name: _nanmedian(found[str(i)][name]) for name in BSS_EVAL_METRICS}
        merit = float(np.nan_to_num(_nanmean([value[tester.best_permutation_key] for value in values]), nan=-np.inf))
        if best is None or merit > best[0]:
            best = merit, order, values
    return best[1], best[2]


def _score_stoi(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """Short-time objective intelligibility by pystoi; NaN if less than 0.4 s of a source is loud enough."""
    import pystoi

    extended = bool(tester.args.get("extended", False))

    def score(reference: np.ndarray, estimate: np.ndarray) -> float:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=RuntimeWarning, message="Not enough STFT frames")
            try:
                return float(pystoi.stoi(reference, estimate, sample_rate, extended=extended))
            except RuntimeWarning:
                return float("nan")

    return _score_pairs("ESTOI" if extended else "STOI", score, references, estimates, tester)


def _score_pesq(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """PESQ; NaN if it finds no utterance in a source or an estimate."""
    try:
        import pesq
    except ImportError as error:
        raise UserError(
            "PESQ is not installed; `envs/extra.sh pesq` builds it", key="test_config.testers.PESQ"
        ) from error
    mode = tester.args.get("mode") or PESQ_MODES[sample_rate][0]

    def score(reference: np.ndarray, estimate: np.ndarray) -> float:
        # error codes instead of exceptions: one silent estimate must not stop an evaluation
        found = pesq.pesq(sample_rate, reference, estimate, mode, on_error=pesq.PesqError.RETURN_VALUES)
        return float(found) if found > 0 else float("nan")

    return _score_pairs("PESQ", score, references, estimates, tester)


def _score_pairs(
    metric: str,
    score: Callable[[np.ndarray, np.ndarray], float],
    references: np.ndarray,
    estimates: np.ndarray,
    tester: Tester,
) -> tuple[list[int], list[dict[str, float]]]:
    """A metric of one source and one estimate, each one channel; means over the channels."""

    def of_channels(reference: np.ndarray, estimate: np.ndarray) -> float:
        if not _is_audible(reference):
            return float("nan")
        return float(_nanmean([score(one, other) for one, other in zip(reference, estimate, strict=True)]))

    if not tester.compute_permutation:
        return list(range(len(references))), [
            {metric: of_channels(reference, estimate)}
            for reference, estimate in zip(references, estimates, strict=True)
        ]
    pairs = np.array([[of_channels(reference, estimate) for estimate in estimates] for reference in references])
    order = best_assignment(np.nan_to_num(pairs, nan=0.0))
    return order, [{metric: float(pairs[source, estimate])} for source, estimate in enumerate(order)]


_SCORE_OF = {"BSSEvalScale": _score_scale, "BSSEvalV4": _score_v4, "STOI": _score_stoi, "PESQ": _score_pesq}


def _decibel(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """10 log10(signal / noise) limited to +-MAX_DB; -MAX_DB without signal, at any noise."""
    ratio = np.divide(signal, noise, out=np.full(signal.shape, np.inf), where=noise > 0)
    ratio = np.where(signal > 0, ratio, 0.0)
    bound = 10 ** (MAX_DB / 10)
    return 10 * np.log10(np.clip(ratio, 1 / bound, bound))


def _is_audible(reference: np.ndarray) -> bool:
    return bool(np.any(np.var(reference, axis=-1) > SILENCE_POWER))


def _nanmean(values: Any, axis: int | None = None) -> Any:
    """The mean of all values that are not NaN; NaN without a warning if there are none."""
    values = np.asarray(values, dtype=np.float64)
    count = (~np.isnan(values)).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _nanmedian(values: Any) -> float:
    values = np.ravel(np.asarray(values, dtype=np.float64))
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")
