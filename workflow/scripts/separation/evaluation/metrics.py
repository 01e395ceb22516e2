"""Scores of estimated sources against their references.

Scale-invariant and scale-dependent ratios follow J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey: "SDR - half-baked or
well done?", ICASSP 2019, as nussl.evaluation.BSSEvalScale computes them; here all pairs of estimate and reference are
scored at once from a few inner products (scale_metrics). The others are in bss_eval and speech_metrics.

Edge cases, where nussl returns NaN or infinities, or fails:
- An estimate with NaN or infinite samples has no scores, and is named in `ItemScores.non_finite`.
- A silent reference (below SILENCE_POWER after its mean is removed) has no scores but LEAKAGE: its metrics are NaN, and
  the permutation ignores it. The other sources are scored as if it did not exist.
- A source alone, all others silent, has no improvements, because the mixture needs none, and no interference.
- Ratios are limited to +-MAX_DB: a perfect estimate has an SI-SDR of MAX_DB instead of infinity, and a silent estimate
  of an audible source has -MAX_DB. A model cannot gain by returning silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from separation.errors import UserError
from separation.evaluation.bss_eval import score_usdr, score_v3, score_v4
from separation.evaluation.scale_metrics import score_scale
from separation.evaluation.speech_metrics import score_pesq, score_stoi
from separation.experiment.testers import Tester


@dataclass(frozen=True)
class ItemScores:
    """Scores of one item.

    Attributes:
        scores: source -> metric -> value; see `experiment.metric_definitions` for units, channels and windows.
        assignment: source -> index of its estimate, according to the first tester.
        non_finite: Sources without scores because of NaN or infinite samples: in their estimate, or in any reference or
            the mixture.
    """

    scores: dict[str, dict[str, float]]
    assignment: dict[str, int]
    non_finite: tuple[str, ...] = ()


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
        raise ValueError(
            f"expected (channels, samples) of references, estimates and mixture to be the same, found "
            f"{references.shape[1:]}, {estimates.shape[1:]} and {mixture.shape}"
        )
    usable = usable_estimates(references, estimates, mixture)
    if not usable.any():
        references, mixture = np.zeros_like(references), np.zeros_like(mixture)
    estimates = np.where(usable[:, None, None], estimates, 0.0)
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
        for row, value, estimate in zip(scores, values, order, strict=True):
            row.update(value if usable[estimate] else dict.fromkeys(value, float("nan")))
    names = list(sources)
    non_finite = [name for name, estimate in zip(names, assignment or (), strict=True) if not usable[estimate]]
    return ItemScores(
        dict(zip(names, scores, strict=True)), dict(zip(names, assignment or (), strict=True)), tuple(non_finite)
    )


def usable_estimates(references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """Which estimates can be scored: those without NaN and infinite samples, and none if the references or the mixture
    have such samples, because every metric compares with all of them.

    Args:
        references: (sources, channels, samples).
        estimates: (estimates, channels, samples).
        mixture: (channels, samples).

    Returns:
        (estimates,) of bool.
    """
    known = bool(np.isfinite(references).all() and np.isfinite(mixture).all())
    return np.isfinite(estimates).all(axis=(1, 2)) & known


_SCORE_OF = {
    "BSSEvalScale": score_scale,
    "BSSEvalV4": score_v4,
    "BSSEvalV3": score_v3,
    "uSDR": score_usdr,
    "STOI": score_stoi,
    "PESQ": score_pesq,
}
