import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture

from separation.evaluation.clustering import best_centres, with_several_draws


def overlapping(seed=0, clusters=6, points=4000):
    """Points of a weak embedding on the unit sphere: k-means has many local minima."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, 8))
    found = centres[rng.integers(clusters, size=points)] + 0.8 * rng.normal(size=(points, 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_several_draws_end_in_a_lower_minimum_than_one():
    for seed in range(4):
        points = overlapping(seed)
        singles = [KMeans(4, random_state=number, n_init=1).fit(points).inertia_ for number in range(10)]
        ours = with_several_draws(KMeans(4, random_state=seed)).fit(points).inertia_
        assert ours <= np.median(singles)
        assert ours <= 1.005 * min(singles)


def test_the_draw_of_another_seed_changes_little():
    points = overlapping()
    many = [with_several_draws(KMeans(3, random_state=seed)).fit(points).inertia_ for seed in range(6)]
    one = [KMeans(3, random_state=seed, n_init=1).fit(points).inertia_ for seed in range(6)]
    assert np.ptp(many) < 0.3 * np.ptp(one)


def test_a_seed_gives_the_same_clusters():
    points = overlapping()
    clusterer = with_several_draws(KMeans(3, random_state=5))
    first = clusterer.fit(points).cluster_centers_.copy()
    assert np.array_equal(clusterer.fit(points).cluster_centers_, first)
    assert best_centres(points, 3, 5).dtype == points.dtype


def test_an_explicit_number_of_draws_is_obeyed():
    for clusterer in (KMeans(2, n_init=1), KMeans(2, init="random"), GaussianMixture(2)):
        assert with_several_draws(clusterer) is clusterer
    assert with_several_draws(MiniBatchKMeans(2)).n_init > 1
    assert type(with_several_draws(KMeans(2))) is not KMeans


@pytest.mark.parametrize("points", [np.zeros((50, 3), np.float32), np.eye(3, dtype=np.float32)])
def test_points_without_clusters_are_clustered_all_the_same(points):
    assert np.isfinite(best_centres(points, 3, 0)).all()
