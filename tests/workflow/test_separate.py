"""`make separate` and `make export` with a trained point."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas
import pytest
import soundfile

from projects import ROOT, UNSET
from separation.commands import export, separate


def run_python(folder, library, *arguments):
    """Runs Python in a folder, with a library on its path."""
    variables = {name: value for name, value in os.environ.items() if name not in UNSET} | {"PYTHONPATH": str(library)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.fixture
def point(finished):
    return min((finished.folder / "results" / "artifacts").glob("dpcl-*")).name


def noise(seconds, rate, channels, seed=0):
    rng = np.random.default_rng(seed)
    tones = sum(np.sin(2 * np.pi * f * np.arange(int(seconds * rate)) / rate) for f in (220, 880, 1500))
    return 0.1 * (tones[:, None] * np.ones(channels) + 0.3 * rng.normal(size=(len(tones), channels)))


def test_estimates_have_the_rate_channels_and_length_of_the_file(tmp_path, finished, point):
    files = {"song.flac": (44_100, 2, 1.3), "word.wav": (11_025, 1, 0.001), "native.wav": (8_000, 1, 2.0)}
    for name, (rate, channels, seconds) in files.items():
        soundfile.write(tmp_path / name, noise(seconds, rate, channels), rate)
    # as the Makefile runs it
    arguments = ("--model", point, "--output", tmp_path / "out", *(tmp_path / name for name in files))
    library = ROOT / "workflow" / "scripts"
    done = run_python(finished.folder, library, "-m", "separation.commands.separate", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(tmp_path / "out" / f"{name.split('.')[0]}_{number}.wav") for name in files for number in (1, 2)
    ]
    for name, (rate, channels, _) in files.items():
        mixture = soundfile.read(tmp_path / name, always_2d=True)[0]
        estimates = []
        for number in (1, 2):
            estimate, estimate_rate = soundfile.read(
                tmp_path / "out" / f"{name.split('.')[0]}_{number}.wav", always_2d=True
            )
            assert estimate_rate == rate and estimate.shape == mixture.shape == (len(mixture), channels)
            estimates.append(estimate)
        if name == "native.wav":
            # the soft masks of all clusters sum to one
            assert np.allclose(sum(estimates), mixture, atol=1e-4) and np.abs(estimates[0]).max() > 0.01


def test_mistakes_are_reported_in_one_line(tmp_path, run_command, finished, point):
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "empty.wav", np.zeros((0, 1)), 8000)
    cases = {
        (point, "missing.wav"): "missing.wav: expected an audio file, found none",
        (point, "text.wav"): "text.wav: cannot be read as audio",
        (point, "empty.wav"): "empty.wav: expected audio, found no samples",
        (point[:-1] + "x", "text.wav"): f"did you mean '{point}'",
    }
    for (model, audio), message in cases.items():
        done = run_command(separate.main, finished.folder, "--model", model, tmp_path / audio)
        assert done.returncode == 1 and message in done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


LOADED_BY_NUSSL = """
import sys
import numpy as np
import soundfile
from separation.nussl_compat import nussl  # patches nussl for newer libraries; needs nothing else of this project
audio, rate = soundfile.read(sys.argv[1], always_2d=True)
mixture = nussl.AudioSignal(audio_data_array=audio.T, sample_rate=rate)
model = nussl.separation.deep.DeepClustering(mixture, 2, model_path="model.pth", mask_type="soft", random_state=0)
estimates = model()
assert {name for name in sys.modules if name.startswith("separation")} == {"separation", "separation.nussl_compat"}
print(len(estimates), np.abs(sum(estimate.audio_data for estimate in estimates) - audio.T).max())
"""


def test_nussl_loads_an_exported_point(tmp_path, run_command, point, finished):
    folder = tmp_path / "an export"
    arguments = ("--model", point, "--output", folder, "--licence", "CC0-1.0")
    done = run_command(export.main, finished.folder, *arguments)
    assert done.returncode == 0 and done.stdout.strip() == str(folder), done.stderr
    assert {path.name for path in folder.iterdir()} == {
        *("README.md", "LICENCES.md", "config.yml", "metrics.json", "model.pth", "scores.parquet"),
    }
    scores = pandas.read_parquet(folder / "scores.parquet")
    (means,) = json.loads((folder / "metrics.json").read_text())["scores"]
    assert means["metrics"]["SI-SDR"] == pytest.approx(scores["SI-SDR"].mean())
    card, licences = (folder / "README.md").read_text(), (folder / "LICENCES.md").read_text()
    assert point in card and f"| all | {scores['SI-SDR'].mean():.2f} |" in card
    assert "CC0-1.0" in licences and "TimGM6mb.sf2" in licences

    soundfile.write(tmp_path / "song.wav", noise(1.0, 8_000, 1), 8_000)
    (tmp_path / "alone" / "separation").mkdir(parents=True)
    library = ROOT / "workflow" / "scripts" / "separation"
    for name in ("__init__.py", "nussl_compat.py"):
        shutil.copy(library / name, tmp_path / "alone" / "separation" / name)
    (tmp_path / "load.py").write_text(LOADED_BY_NUSSL)
    loaded = run_python(folder, tmp_path / "alone", tmp_path / "load.py", tmp_path / "song.wav")
    assert loaded.returncode == 0, loaded.stderr
    count, difference = loaded.stdout.split()
    assert count == "2" and float(difference) < 1e-4

    # an export works as a model as well
    for model, output in ((folder, "of_export"), (point, "of_point")):
        arguments = ("--model", model, "--output", tmp_path / output, tmp_path / "song.wav")
        done = run_command(separate.main, finished.folder, *arguments)
        assert done.returncode == 0, done.stderr
    for number in (1, 2):
        one, other = (soundfile.read(tmp_path / name / f"song_{number}.wav")[0] for name in ("of_export", "of_point"))
        assert np.array_equal(one, other)

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("must not be lost")
    refused = run_command(export.main, finished.folder, "--model", point, "--output", tmp_path / "full")
    assert refused.returncode == 1 and "expected a new folder" in refused.stderr
    assert (tmp_path / "full" / "thesis.txt").read_text() == "must not be lost"
