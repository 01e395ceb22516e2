"""Intervals and comparisons of simulated scores with known means."""

import numpy as np
import pytest

from separation.analysis import statistics

NUM_SONGS, ITEMS_PER_SONG, NUM_SOURCES = 8, 6, 2


def draw_scores(num_columns: int, *, song_spread: float, truth: float = 5.0, seed: int = 0):
    """Scores (units, columns) of songs that differ by `song_spread` dB, with each unit's item and song."""
    random = np.random.default_rng(seed)
    songs = np.repeat(np.arange(NUM_SONGS), ITEMS_PER_SONG * NUM_SOURCES)
    items = np.repeat(np.arange(NUM_SONGS * ITEMS_PER_SONG), NUM_SOURCES)
    of_song = random.normal(0, song_spread, (NUM_SONGS, num_columns))
    scores = truth + of_song[songs] + random.normal(0, 1, (len(songs), num_columns))
    return scores, items, songs


def coverage(interval: statistics.Interval, truth: float) -> float:
    return float(((interval.low <= truth) & (truth <= interval.high)).mean())


def test_intervals_of_eight_songs_cover_the_true_mean_at_the_stated_rate():
    scores, _, songs = draw_scores(600, song_spread=1.0)
    interval = statistics.bootstrap_mean(scores, songs, seed=1, num_resamples=1000)
    assert 0.92 <= coverage(interval, 5.0) <= 0.985


def test_intervals_that_ignore_songs_cover_too_little():
    scores, items, _ = draw_scores(600, song_spread=1.0)
    interval = statistics.bootstrap_mean(scores, items, seed=1, num_resamples=1000)
    assert coverage(interval, 5.0) < 0.75


def test_paired_intervals_cover_the_true_difference_at_the_stated_rate():
    easier, items, songs = draw_scores(600, song_spread=2.0)
    random = np.random.default_rng(5)
    better = easier + 0.4 + random.normal(0, 0.2, (NUM_SONGS, 600))[songs] + random.normal(0, 0.5, easier.shape)
    found = statistics.paired_difference(better, easier, items, songs, seed=1, num_resamples=1000)
    assert 0.92 <= coverage(found.difference, 0.4) <= 0.985


def test_pairing_shows_a_difference_that_two_separate_intervals_hide():
    scores, items, songs = draw_scores(1, song_spread=3.0)
    random = np.random.default_rng(2)
    better = scores + 0.5 + random.normal(0, 0.3, scores.shape)
    one, other = (statistics.bootstrap_mean(values, songs, seed=0) for values in (scores, better))
    assert one.high[0] > other.low[0]
    found = statistics.paired_difference(better, scores, items, songs, seed=0)
    assert found.difference.low[0] > 0.3
    assert found.difference.high[0] < 0.7
    assert found.items[0] == 48
    assert found.clusters[0] == 8


def test_false_differences_appear_in_at_most_one_of_twenty_sweeps():
    scores, items, songs = draw_scores(400, song_spread=1.0)
    other = scores + np.random.default_rng(9).normal(0, 1, scores.shape)
    found = statistics.paired_difference(other, scores, items, songs, seed=0, num_resamples=1000)
    difference = found.difference
    verdicts = [
        statistics.verdict(*numbers) for numbers in zip(difference.mean, difference.low, difference.high, strict=True)
    ]
    assert 0.91 <= verdicts.count(statistics.NO_DIFFERENCE) / 400 <= 0.99


def test_median_intervals_cover_the_true_median_at_the_stated_rate():
    scores, _, songs = draw_scores(400, song_spread=1.0)
    interval = statistics.bootstrap_median(scores, songs, seed=1, num_resamples=500)
    assert 0.9 <= coverage(interval, 5.0) <= 0.99
    assert np.allclose(interval.mean, np.median(scores, axis=0))


@pytest.mark.parametrize("num_clusters", [3, 150])
def test_resampled_medians_equal_medians_of_the_drawn_units(num_clusters):
    random = np.random.default_rng(0)
    values, clusters = random.normal(size=(200, 1)), np.arange(200) % num_clusters
    found = statistics.bootstrap_median(values, clusters, seed=5, num_resamples=300)
    drawn = np.random.default_rng(5).multinomial(num_clusters, np.full(num_clusters, 1 / num_clusters), size=300)
    medians = [np.median(np.repeat(values[:, 0], counts[clusters])) for counts in drawn]
    tail = statistics.tail_probability(num_clusters)
    assert found.low[0] == pytest.approx(np.quantile(medians, tail))
    assert found.high[0] == pytest.approx(np.quantile(medians, 1 - tail))


def test_medians_ignore_missing_scores_and_need_two_songs_for_an_interval():
    values = np.array([[1.0, 1.0, np.nan], [2.0, np.nan, np.nan], [9.0, np.nan, np.nan], [4.0, 3.0, np.nan]])
    found = statistics.bootstrap_median(values, np.array([0, 0, 1, 1]), seed=0)
    assert np.array_equal(found.mean, [3.0, 2.0, np.nan], equal_nan=True)
    assert found.low[0] >= 1.0 and found.high[0] <= 9.0 and np.isnan(found.low[2])
    alone = statistics.bootstrap_median(values, np.zeros(4), seed=0)
    assert np.array_equal(alone.mean, found.mean, equal_nan=True) and np.isnan(alone.low).all()


def draw_seeds(random, *, seeds, seed_spread, songs, truth):
    """Scores (units, seeds) of one setting: all seeds share the songs, and each seed has its own mean."""
    trained = random.normal(truth, seed_spread, seeds)
    return trained + songs + random.normal(0, 0.5, (len(songs), seeds))


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("seed_spread", [0.0, 0.8])
def test_differences_between_settings_account_for_the_spread_of_seeds(seeds, seed_spread):
    random = np.random.default_rng(4)
    songs, right, one_seed = np.repeat(np.arange(NUM_SONGS), ITEMS_PER_SONG), [], []
    for _ in range(300):
        of_song = random.normal(0, 1, NUM_SONGS)[songs][:, None]
        draw = {"seeds": seeds, "seed_spread": seed_spread, "songs": of_song}
        one, other = draw_seeds(random, truth=5.4, **draw), draw_seeds(random, truth=5.0, **draw)
        _, low, high = statistics.difference_over_seeds(one, other, songs)
        right.append(low <= 0.4 <= high)
        _, low, high = statistics.difference_over_seeds(one[:, :1], other[:, :1], songs)
        one_seed.append(low <= 0.4 <= high)
    assert np.mean(right) >= 0.92
    # with one training run per setting, chance looks like a difference
    assert seed_spread == 0 or np.mean(one_seed) < 0.5


def test_intervals_over_seeds_cover_seeds_and_songs():
    random = np.random.default_rng(0)
    songs = np.repeat(np.arange(NUM_SONGS), ITEMS_PER_SONG)
    right, spreads = [], []
    for _ in range(300):
        of_song = random.normal(0, 1, NUM_SONGS)[songs][:, None]
        values = draw_seeds(random, seeds=4, seed_spread=0.8, songs=of_song, truth=5.0)
        mean, low, high, spread = statistics.mean_over_seeds(values, songs)
        right.append(low <= 5.0 <= high)
        spreads.append(spread)
    assert 0.92 <= np.mean(right) <= 0.99
    assert np.mean(spreads) == pytest.approx(0.8, rel=0.15)
    mean, low, high, spread = statistics.mean_over_seeds(values[:, :1], songs)
    assert low < mean < high and np.isnan(spread)
    assert np.isnan(statistics.mean_over_seeds(values, np.zeros(len(values)))[1])


def test_effect_size_is_the_mean_over_the_deviation_of_item_differences():
    first = np.array([[1.0], [3.0], [2.0], [2.0], [4.0], [6.0]])
    items = np.array([0, 0, 1, 1, 2, 2])  # item means 2, 2, 5
    found = statistics.paired_difference(first, np.zeros((6, 1)), items, items, seed=0)
    assert found.effect_size[0] == pytest.approx(3.0 / np.std([2, 2, 5], ddof=1))
    assert found.share_better[0] == 1.0


def test_missing_scores_are_ignored_and_not_counted_as_zero():
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, np.nan], [5.0, 7.0], [np.inf, np.nan]])
    interval = statistics.bootstrap_mean(values, np.array([0, 0, 1, 2, 2]), seed=0)
    assert interval.mean.tolist() == [3.0, 7.0]
    # All scores of the second column are from one song, so there is no interval over songs
    assert np.isfinite(interval.low[0])
    assert np.isnan(interval.low[1])
    assert np.isnan(interval.high[1])


def test_columns_with_fewer_songs_get_the_same_interval_as_alone():
    scores, _, songs = draw_scores(1, song_spread=1.0)
    half = np.where((songs < 4)[:, None], scores, np.nan)
    both = statistics.bootstrap_mean(np.hstack([scores, half]), songs, seed=3)
    alone = statistics.bootstrap_mean(half[songs < 4], songs[songs < 4], seed=3)
    assert both.low[1] == alone.low[0]
    assert both.high[1] == alone.high[0]


def test_intervals_are_determined_by_the_seed():
    scores, _, songs = draw_scores(3, song_spread=1.0)
    one, again, other = (statistics.bootstrap_mean(scores, songs, seed=seed) for seed in (4, 4, 5))
    assert one.low.tolist() == again.low.tolist()
    assert one.low.tolist() != other.low.tolist()


def test_intervals_of_few_songs_are_wider():
    # Phi(sqrt(10 / 9) * t) with Student's t of 9 degrees of freedom at 2.5 %, -2.2622
    assert statistics.tail_probability(10) == pytest.approx(0.00855, abs=1e-4)
    assert statistics.tail_probability(100_000) == pytest.approx(0.025, abs=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        statistics.tail_probability(1)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((0.5, 0.1, 0.9), "better"),
        ((-0.5, -0.9, -0.1), "worse"),
        ((0.5, -0.1, 1.1), "no difference shown"),
        ((0.5, 0.0, 1.1), "no difference shown"),
        ((0.5, np.nan, np.nan), "too few songs to tell"),
        ((np.nan, np.nan, np.nan), "no mixture in common"),
    ],
)
def test_verdicts_follow_from_the_interval(numbers, words):
    assert statistics.verdict(*numbers) == words


def test_oracle_share_is_zero_at_the_mixture_and_one_at_the_oracle():
    mixture, oracle = np.array([0.0, -2.0, np.nan]), np.array([10.0, 12.0, 50.0])
    assert statistics.oracle_share(mixture, mixture, oracle) == 0
    assert statistics.oracle_share(oracle, mixture, oracle) == 1
    assert statistics.oracle_share(np.array([5.0, 5.0, 99.0]), mixture, oracle) == pytest.approx(0.5)
    assert np.isnan(statistics.oracle_share(oracle, mixture, mixture))
