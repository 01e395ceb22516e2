"""Scores with known true means, and how often intervals cover them and verdicts are false.

The rates are those of the functions that make a sweep's tables. benchmarks/false_verdicts.py prints them for many
scenarios and repetitions, the tests of `separation.analysis` check a few.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from separation.analysis import statistics
from separation.analysis.clustered import estimate_means, interval_of_mean, interval_of_median
from separation.analysis.families import Compared, judge

# Mixtures per song: alike, or as uneven as one song with 21 times the mixtures of another
SIZES = {"equal": [6], "uneven": [1, 2, 3, 5, 8, 13, 21]}
SHOWN = (statistics.BETTER, statistics.WORSE)


def draw(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Values of mean 0 and variance 1: normal, t3 (heavy tails) or lognormal (skewed)."""
    if kind == "normal":
        return random.normal(size=shape)
    if kind == "t3":
        return random.standard_t(3, shape) / np.sqrt(3)
    return (np.exp(random.normal(size=shape)) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1))


def songs_of(num_songs: int, sizes: str = "equal") -> np.ndarray:
    """The song of each mixture."""
    return np.repeat(np.arange(num_songs), np.resize(SIZES[sizes], num_songs))


def coverage(
    num_songs: int, kind: str, sizes: str, between: float, *, repeats: int, seed: int = 0, median: bool = False
) -> float:
    """How often a 95 % interval covers the true mean (or median, for symmetric kinds).

    Args:
        between: Share of the variance between songs; the rest is between mixtures of one song.
    """
    random, songs = np.random.default_rng(seed), songs_of(num_songs, sizes)
    values = np.sqrt(between) * draw(random, (num_songs, repeats), kind)[songs]
    values += np.sqrt(1 - between) * draw(random, (len(songs), repeats), kind)
    found = (interval_of_median if median else interval_of_mean)(values, songs)
    return float(((found.low <= 0) & (found.high >= 0)).mean())


def false_verdicts_with_speakers(
    num_speakers: int, num_mixtures: int, effect: float, *, repeats: int, seed: int = 0, layout: str = "any"
) -> float:
    """How often two networks that are equally good are shown to differ, on mixtures of two speakers.

    Args:
        effect: Standard deviation of what a speaker adds to the difference of two networks, in dB; a mixture adds 1 dB.
        layout: "any" two speakers, "sexes" (one of each half), or "uneven": some speakers are in most mixtures.
    """
    random = np.random.default_rng(seed)
    if layout == "sexes":
        first = random.integers(num_speakers // 2, size=num_mixtures)
        second = random.integers(num_speakers // 2, num_speakers, size=num_mixtures)
    else:
        often = 1 / np.arange(1, num_speakers + 1) if layout == "uneven" else np.ones(num_speakers)
        first = random.choice(num_speakers, num_mixtures, p=often / often.sum())
        second = (first + random.integers(1, num_speakers, num_mixtures)) % num_speakers
    of_speaker = effect * random.normal(size=(num_speakers, repeats))
    differences = of_speaker[first] + of_speaker[second] + random.normal(size=(num_mixtures, repeats))
    estimate = estimate_means(differences, list(zip(first.tolist(), second.tolist(), strict=True)))
    found = [Compared({"kind": "best"}, estimate.column(index)) for index in range(repeats)]
    return float(np.mean([judge([one], "speaker")[0]["verdict"] in SHOWN for one in found]))


def networks(
    random: np.random.Generator, num_points: int, songs: np.ndarray, seeds: int, spread: float, wild: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of equally good settings, (num_mixtures, num_points, seeds), and the luck of each training, in dB.

    Songs differ by 2 dB, the points' differences between songs by 0.5 dB and between mixtures by 0.7 dB; trainings
    differ by `spread`, those of the first setting `wild` times as much.
    """
    luck = spread * random.normal(size=(num_points, seeds))
    luck[0] *= wild
    num_songs = songs.max() + 1
    scores = 2 * random.normal(size=(num_songs, 1, 1))[songs]
    scores = scores + 0.5 * random.normal(size=(num_songs, num_points, seeds))[songs]
    return scores + 0.7 * random.normal(size=(len(songs), num_points, seeds)) + luck, luck


def any_false_verdict_on_networks(
    num_points: int, num_songs: int, kind: str, *, repeats: int, seed: int = 0, spread: float = 0.0, truth: float = 0.0
) -> float:
    """How often a family of comparisons of networks shows any difference: kind is "best" or "pair".

    Args:
        truth: True difference of the first point from all others (dB): the rate is then that at which the first
            comparison shows it.
    """
    random, songs = np.random.default_rng(seed), songs_of(num_songs)
    pairs = [(0, other) for other in range(1, num_points)] if kind == "best" else combinations(range(num_points), 2)
    one, other = np.array(list(pairs)).T
    found = []
    for _ in range(repeats):
        scores, _ = networks(random, num_points, songs, 1, spread)
        scores[:, 0] += truth
        estimate = estimate_means(scores[:, one, 0] - scores[:, other, 0], songs)
        rows = judge([Compared({"kind": kind}, estimate.column(index)) for index in range(len(one))], "song")
        found.append(any(row["verdict"] in SHOWN for row in (rows[:1] if truth else rows)))
    return float(np.mean(found))


def any_false_verdict_on_settings(
    num_points: int,
    num_songs: int,
    seeds: int,
    *,
    repeats: int,
    seed: int = 0,
    spread: float = 0.3,
    wild: float = 1.0,
    all_pairs: bool = False,
    truth: float = 0.0,
) -> float:
    """How often the settings of a sweep with several seeds are shown to differ.

    The setting that all are compared with is that of the luckiest trainings, as if validation showed all their luck.

    Args:
        wild: How many times further the trainings of the first setting differ.
        all_pairs: Whether all pairs of settings are looked at, or those with the best one alone.
        truth: True difference of the first setting, then the best one, from all others (dB): the rate is then that at
            which the first comparison shows it.
    """
    random, songs, found = np.random.default_rng(seed), songs_of(num_songs), []
    size = num_points * (num_points - 1) // 2
    for _ in range(repeats):
        scores, luck = networks(random, num_points, songs, seeds, spread, wild)
        scores[:, 0] += truth
        best = 0 if truth else int(luck.mean(axis=1).argmax())
        pairs = [(best, other) for other in range(num_points) if other != best]
        if all_pairs:
            pairs = combinations(range(num_points), 2)
        pooled = statistics.PooledSpread.of([scores[:, point] for point in range(num_points)])
        estimates = [
            statistics.difference_over_trainings(scores[:, one], scores[:, other], songs, pooled)
            for one, other in pairs
        ]
        compared = [Compared({"kind": "group"}, estimate) for estimate in estimates]
        rows = judge(compared, "song", {"settings": size})
        found.append(any(row["verdict"] in SHOWN for row in (rows[:1] if truth else rows)))
    return float(np.mean(found))


def any_false_main_effect(
    num_values: int, num_pairs: int, num_songs: int, *, repeats: int, seed: int = 0, spread: float = 0.3
) -> float:
    """How often a key without effect is shown to have one, over matched pairs of trainings.

    The value that the others are compared with is that of the luckiest training.
    """
    random, songs, found = np.random.default_rng(seed), songs_of(num_songs), []
    for _ in range(repeats):
        scores, luck = networks(random, num_values, songs, num_pairs, spread)
        best = int(luck.max(axis=1).argmax())
        compared = [
            Compared({"kind": "effect"}, statistics.mean_over_trainings(scores[:, value] - scores[:, best], songs))
            for value in range(num_values)
            if value != best
        ]
        found.append(any(row["verdict"] in SHOWN for row in judge(compared, "song")))
    return float(np.mean(found))
