"""How long files are put together from sections."""

import numpy as np
import pytest

from separation.commands import separate

RATE = 1000


@pytest.mark.parametrize("length", [300, 2000, 2001, 2600, 3500, 9999])
@pytest.mark.parametrize("channels", [1, 2])
def test_sections_are_joined_whatever_order_each_comes_out_in(monkeypatch, length, channels):
    monkeypatch.setattr(separate, "SECTION", 2.0)
    monkeypatch.setattr(separate, "OVERLAP", 0.5)
    rng = np.random.default_rng(length)
    truth = rng.normal(size=(3, length, channels)).astype(np.float32)
    mixture, told, orders = truth.sum(axis=0), [], [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]]

    def algorithm(samples):
        # a perfect one, but for the order of what it finds; where the section is from is found by its first sample
        start = int(np.flatnonzero((mixture == samples[0]).all(axis=1))[0])
        told.append(len(samples))
        return [truth[source, start : start + len(samples)] for source in orders[(len(told) - 1) % 4]]

    found = separate._in_sections(algorithm, mixture, RATE, in_order=False)
    assert len(found) == 3 and max(told) <= 2000 and min(told) >= min(length, 500)
    for one, other in zip(found, truth, strict=True):
        assert one.shape == other.shape and np.allclose(one, other, atol=1e-5)


def test_sources_with_names_stay_where_the_network_puts_them(monkeypatch):
    monkeypatch.setattr(separate, "SECTION", 2.0)
    monkeypatch.setattr(separate, "OVERLAP", 0.5)
    quiet, loud = np.zeros((4000, 1), np.float32), np.ones((4000, 1), np.float32)

    def algorithm(samples):
        return [quiet[: len(samples)], loud[: len(samples)]]

    found = separate._in_sections(algorithm, loud, RATE, in_order=True)
    assert np.array_equal(found[0], quiet) and np.array_equal(found[1], loud)
