"""Separation of long files in sections."""

import numpy as np
import pytest

from separation.commands import separate

RATE = 1000


@pytest.mark.parametrize("length", [300, 2000, 2001, 2600, 3500, 9999])
@pytest.mark.parametrize("channels", [1, 2])
def test_sections_are_joined_whatever_the_order_of_their_estimates(monkeypatch, length, channels):
    monkeypatch.setattr(separate, "SECTION", 2.0)
    monkeypatch.setattr(separate, "OVERLAP", 0.5)
    rng = np.random.default_rng(length)
    truth = rng.normal(size=(3, length, channels)).astype(np.float32)
    mixture, lengths, orders = truth.sum(axis=0), [], [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]]

    def algorithm(samples):
        # perfect except for the order of its estimates; the first sample identifies the section
        start = int(np.flatnonzero((mixture == samples[0]).all(axis=1))[0])
        lengths.append(len(samples))
        return [truth[source, start : start + len(samples)] for source in orders[(len(lengths) - 1) % 4]]

    estimates = separate._separate_sections(algorithm, mixture, RATE, in_order=False)
    assert len(estimates) == 3 and max(lengths) <= 2000 and min(lengths) >= min(length, 500)
    for estimate, source in zip(estimates, truth, strict=True):
        assert estimate.shape == source.shape and np.allclose(estimate, source, atol=1e-5)


def test_named_sources_keep_the_order_of_the_network(monkeypatch):
    monkeypatch.setattr(separate, "SECTION", 2.0)
    monkeypatch.setattr(separate, "OVERLAP", 0.5)
    quiet, loud = np.zeros((4000, 1), np.float32), np.ones((4000, 1), np.float32)

    def algorithm(samples):
        return [quiet[: len(samples)], loud[: len(samples)]]

    estimates = separate._separate_sections(algorithm, loud, RATE, in_order=True)
    assert np.array_equal(estimates[0], quiet) and np.array_equal(estimates[1], loud)
