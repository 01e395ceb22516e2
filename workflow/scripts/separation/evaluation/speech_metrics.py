"""STOI, ESTOI and PESQ: metrics of speech, one channel of one source and its estimate at a time."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from separation.errors import UserError
from separation.evaluation.global_seed import global_numpy_seed
from separation.evaluation.ratios import audible_channels, best_order, nanmean
from separation.experiment.testers import PESQ_MODES, Tester

# pystoi needs 30 frames of 256 samples every 128 samples, at 10 kHz
STOI_RATE = 10_000
STOI_SAMPLES = 256 + 29 * 128 + 1


def score_stoi(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """Short-time objective intelligibility by pystoi; NaN if less than 0.4 s of a source is loud enough."""
    import pystoi

    extended = bool(tester.args.get("extended", False))

    def score(reference: np.ndarray, estimate: np.ndarray) -> float:
        if reference.size * STOI_RATE < STOI_SAMPLES * sample_rate:
            return float("nan")
        # pystoi adds a little noise to the bands of ESTOI, which decides the score of a silent passage
        with global_numpy_seed(0), warnings.catch_warnings():
            warnings.filterwarnings("error", category=RuntimeWarning, message="Not enough STFT frames")
            try:
                return float(pystoi.stoi(reference, estimate, sample_rate, extended=extended))
            except RuntimeWarning:
                return float("nan")

    return _score_pairs("ESTOI" if extended else "STOI", score, references, estimates, tester)


def score_pesq(
    references: np.ndarray, estimates: np.ndarray, mixture: np.ndarray, tester: Tester, sample_rate: int
) -> tuple[list[int], list[dict[str, float]]]:
    """PESQ; NaN if it finds no utterance in a source or an estimate, or less than 0.25 s of audio."""
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
    """A metric of one source and one estimate, each one channel; means over the channels in which the source sounds."""

    def of_channels(reference: np.ndarray, estimate: np.ndarray) -> float:
        sounding = np.flatnonzero(audible_channels(reference))
        return float(nanmean([score(reference[channel], estimate[channel]) for channel in sounding]))

    if not tester.compute_permutation:
        return list(range(len(references))), [
            {metric: of_channels(reference, estimate)}
            for reference, estimate in zip(references, estimates, strict=True)
        ]
    pairs = np.array([[of_channels(reference, estimate) for estimate in estimates] for reference in references])
    order = best_order(pairs)
    return order, [{metric: float(pairs[source, estimate])} for source, estimate in enumerate(order)]
