"""PCM audio: the bytes of WAV files and the rounding of samples."""

import io

import numpy as np
import pytest
import soundfile

from separation.data.audio.pcm import BITDEPTHS, pcm_file, to_pcm, write_pcm


@pytest.mark.parametrize("shape", [(0,), (1001,), (1000, 1), (1001, 2)])
@pytest.mark.parametrize("bitdepth", BITDEPTHS)
def test_wav_files_are_those_of_libsndfile(shape, bitdepth):
    steps = to_pcm(np.random.default_rng(0).normal(0, 0.3, shape), bitdepth)
    expected = io.BytesIO()
    # libsndfile uses the upper bits of an int32
    words = (steps << (32 - bitdepth)).astype(np.int32)
    soundfile.write(expected, words, 8000, subtype=f"PCM_{bitdepth}", format="WAV")
    assert pcm_file(steps, 8000, bitdepth) == expected.getvalue()


def test_samples_are_rounded_half_to_even_and_clipped():
    audio = np.array([0.5, 1.5, -0.5, -1.5, 0.51, 32767.4, 40000.0, -40000.0]) / 2**15
    assert to_pcm(audio).tolist() == [0, 2, 0, -2, 1, 32767, 32767, -32768]


def test_a_written_file_has_the_returned_content_and_no_other_file_is_left(tmp_path):
    path = tmp_path / "train" / "a.wav"
    assert write_pcm(path, np.arange(10), 8000) == path.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == ["a.wav"]
