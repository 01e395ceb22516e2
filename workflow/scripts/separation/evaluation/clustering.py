"""k-means from the best of several draws of its initial centres.

A single draw of k-means++ often ends in a poor local minimum, the more so the weaker the embedding. Here DRAWS of them
are compared by the criterion of k-means, the inertia: first on a small sample of the points, then the best few on more
of them. This takes little longer than the k-means of all points that follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from separation.machine.jit import jit

DRAWS = 20  # initial centres that are compared
SAMPLE, STEPS = 1000, 12  # points that all draws are compared on, and most steps of k-means with them
FINALISTS, FINAL_SAMPLE, FINAL_STEPS = 3, 4000, 30  # the same for the best draws
ALIKE = 1e-4  # relative difference of inertia below which two draws found the same minimum
MOVING = 1e-3  # share of points that change their cluster, below which centres have settled
MINI_BATCH_DRAWS = 10


class BestOfDraws(KMeans):
    """scikit-learn's KMeans, started from `best_centres`."""

    def fit(self, X: np.ndarray, y: Any = None, sample_weight: Any = None) -> BestOfDraws:
        given = self.init
        self.init = best_centres(X, self.n_clusters, self.random_state)
        try:
            return super().fit(X, y, sample_weight)
        finally:
            self.init = given


def with_several_draws(clusterer: Any) -> Any:
    """A clusterer of nussl that compares several draws where scikit-learn would make one.

    Args:
        clusterer: scikit-learn's KMeans or MiniBatchKMeans, not fitted. One with `n_init` or `init` of its own is
            returned as it is, and so is any other clusterer.
    """
    if type(clusterer) not in (KMeans, MiniBatchKMeans) or clusterer.n_init != "auto" or clusterer.init != "k-means++":
        return clusterer
    if type(clusterer) is MiniBatchKMeans:
        # it compares its draws on a sample by itself
        return clusterer.set_params(n_init=MINI_BATCH_DRAWS)
    return BestOfDraws(**clusterer.get_params())


def best_centres(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Centres of k-means, the best of DRAWS draws by their inertia.

    Args:
        points: Shape (n, dimensions), at least as many as clusters.
        clusters: Number of clusters.
        seed: Determines samples and draws.

    Returns:
        Shape (clusters, dimensions), in the precision of `points`.
    """
    rng = np.random.default_rng(seed)
    sample, more = _sample(points, SAMPLE, rng), _sample(points, FINAL_SAMPLE, rng)
    drawn = [_draw(sample, clusters, uniform) for uniform in rng.random((DRAWS, clusters))]
    for centres in drawn:
        settle(sample, centres, STEPS, 0.0)
    # all are compared on more points than they come from, or an outlier of the sample would decide
    inertia = np.array([settle(more, centres.copy(), 1, 1.0) for centres in drawn])
    finalists: list[int] = []
    for index in np.argsort(inertia, kind="stable"):
        if all(inertia[index] > (1 + ALIKE) * inertia[other] for other in finalists):
            finalists.append(int(index))
    ended = [(settle(more, drawn[index], FINAL_STEPS, MOVING), index) for index in finalists[:FINALISTS]]
    return drawn[min(ended)[1]]


def _sample(points: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(points[rng.choice(len(points), size, replace=False)] if len(points) > size else points)


def _draw(points: np.ndarray, clusters: int, uniform: np.ndarray) -> np.ndarray:
    """Initial centres by k-means++: each point is drawn in proportion to its squared distance to the nearest centre.

    D. Arthur, S. Vassilvitskii: "k-means++: the advantages of careful seeding", SODA 2007.
    """
    centres = points[[min(int(uniform[0] * len(points)), len(points) - 1)]]
    nearest = np.full(len(points), np.inf)
    for number in uniform[1:]:
        difference = points - centres[-1]
        nearest = np.minimum(nearest, np.einsum("ij,ij->i", difference, difference))
        total = np.cumsum(nearest)
        index = min(int(np.searchsorted(total, number * total[-1], side="right")), len(points) - 1)
        centres = np.concatenate([centres, points[[index]]])
    return centres


def _settle(points, centres, steps, moving):
    """k-means (Lloyd's algorithm) in place.

    It ends after `steps`, or when at most this share of the points changes its cluster. Returns the inertia before the
    last move of the centres.
    """
    n, dimensions = points.shape
    clusters = centres.shape[0]
    sums = np.empty((clusters, dimensions))
    counts = np.empty(clusters, np.int64)
    labels = np.full(n, -1)
    inertia = 0.0
    for _ in range(steps):
        sums[:] = 0.0
        counts[:] = 0
        changed = 0
        inertia = 0.0
        for i in range(n):
            nearest = 0
            least = np.inf
            for c in range(clusters):
                distance = 0.0
                for d in range(dimensions):
                    difference = points[i, d] - centres[c, d]
                    distance += difference * difference
                if distance < least:
                    least = distance
                    nearest = c
            inertia += least
            if labels[i] != nearest:
                changed += 1
                labels[i] = nearest
            counts[nearest] += 1
            for d in range(dimensions):
                sums[nearest, d] += points[i, d]
        if changed <= moving * n:
            break
        for c in range(clusters):
            if counts[c] > 0:
                for d in range(dimensions):
                    centres[c, d] = sums[c, d] / counts[c]
    return inertia


settle = jit(_settle)
