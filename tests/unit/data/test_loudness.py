"""Integrated loudness, compared with scaper's."""

import numpy as np
import pytest

from separation.data.scenes.loudness import integrated_loudness
from separation.nussl_compat import scaper


def _noise(frames, channels, level, sample_rate):
    """Noise with pauses, so that some blocks are gated."""
    random = np.random.default_rng(frames + channels)
    envelope = np.repeat(random.uniform(0, 1, frames // (sample_rate // 10) + 1) ** 6, sample_rate // 10)[:frames]
    return level * envelope[:, None] * (random.normal(size=(frames, channels)) + 0.1)


@pytest.mark.parametrize("sample_rate", [8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.001, 0.49, 0.5, 0.77, 4, 10.01])
@pytest.mark.parametrize(("channels", "level"), [(1, 0.3), (2, 1e-3), (5, 0.1), (1, 1e-6), (1, 0)])
def test_loudness_equals_that_of_scaper(sample_rate, seconds, channels, level):
    audio = _noise(int(seconds * sample_rate), channels, level, sample_rate)
    expected = scaper.audio.get_integrated_lufs(audio, sample_rate)
    assert integrated_loudness(audio, sample_rate) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [(0, 1), (8000, 6)])
def test_audio_that_cannot_be_measured_is_an_error(shape):
    with pytest.raises(ValueError, match="up to five channels"):
        integrated_loudness(np.zeros(shape), 8000)
