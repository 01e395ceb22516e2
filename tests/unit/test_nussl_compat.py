"""Patches of nussl and scaper, each tested on the library function that needs it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import jams
import numpy as np
import pytest
import soundfile
import torch

from separation import nussl_compat
from separation.nussl_compat import nussl, scaper

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_RATE = 8000


def noise(channels: int = 1, seconds: float = 1.0, seed: int = 0):
    samples = 0.1 * np.random.default_rng(seed).standard_normal((channels, int(seconds * SAMPLE_RATE)))
    return nussl.AudioSignal(audio_data_array=samples, sample_rate=SAMPLE_RATE)


# ---------------------------------------------------------------- the import


FRESH_PROCESS = """
import json, sys
import separation.nussl_compat
seen = {"early": [name for name in ("nussl", "scaper", "torch", "numpy") if name in sys.modules]}
from separation.nussl_compat import scaper
before = {*sys.modules}
seen["after scaper"] = [name for name in ("nussl", "torch") if name in sys.modules]
from separation.nussl_compat import nussl
seen["after nussl"] = sorted({*sys.modules} - before)
import numpy, scipy.signal
seen["added"] = [name for name in ("hamming", "hann", "blackman") if hasattr(scipy.signal, name)]
seen["added"] += [name for name in ("Inf", "mat") if hasattr(numpy, name)]
seen["museval"] = callable(sys.modules["nussl.evaluation.bss_eval"].museval.metrics.bss_eval)
seen["pandas"] = callable(sys.modules["nussl.evaluation.report_card"].pd.concat)
try:
    nussl.musdb.audio_classes.stempeg.read_stems("song.stem.mp4")
except RuntimeError as error:
    seen["stempeg"] = str(error)
json.dump(seen, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def fresh_import(tmp_path_factory):
    """Output and modules of a process without ffmpeg that imports both libraries."""
    folder = tmp_path_factory.mktemp("fresh_import")
    if shutil.which("sox"):  # the only program on the PATH
        (folder / "sox").symlink_to(shutil.which("sox"))
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(folder / "seen.json")],
        env={**os.environ, "PATH": str(folder), "PYTHONPATH": str(ROOT / "workflow" / "scripts")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return {"stdout": done.stdout, "stderr": done.stderr, **json.loads((folder / "seen.json").read_text())}


def test_the_import_prints_nothing(fresh_import):
    assert (fresh_import["stdout"], fresh_import["stderr"]) == ("", "")


def test_libraries_are_imported_on_first_use(fresh_import):
    assert fresh_import["early"] == []
    assert fresh_import["after scaper"] == [], "mixing with scaper must not wait for torch"


def test_modules_that_nussl_does_not_need_are_not_imported(fresh_import):
    unused = {"torch.distributed.optim", "sympy", "stempeg", "matplotlib", "museval", "musdb"}
    unused |= {"sklearn", "zarr", "gpytorch", "ignite", "tensorboard"}
    assert not unused & set(fresh_import["after nussl"])
    assert fresh_import["pandas"] and fresh_import["museval"], "they are imported on use"


def test_only_stem_files_need_ffmpeg(fresh_import):
    assert fresh_import["museval"], "BSSEval v4 must work without ffmpeg"
    assert "ffmpeg" in fresh_import["stempeg"]


def test_scipy_and_numpy_are_unchanged(fresh_import):
    assert fresh_import["added"] == []


def test_the_warning_of_scipy_ndimage_is_hidden_and_others_are_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with nussl_compat.scipy_ndimage_warning_hidden():
            exec("from scipy.ndimage.filters import convolve")
            warnings.warn("something else", DeprecationWarning, stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["something else"]


@pytest.mark.parametrize("library", ["nussl", "scaper"])
def test_a_library_that_was_imported_unpatched_is_refused(library, monkeypatch):
    monkeypatch.delitem(vars(nussl_compat), library)
    monkeypatch.setitem(sys.modules, library, types.ModuleType(library))
    with pytest.raises(ImportError, match=f"from separation.nussl_compat import {library}"):
        getattr(nussl_compat, library)


def test_a_patch_that_does_not_fit_names_the_cause(monkeypatch):
    monkeypatch.delitem(vars(nussl_compat), "scaper")
    monkeypatch.delitem(sys.modules, "scaper")
    monkeypatch.setitem(nussl_compat._IMPORTERS, "scaper", lambda: scaper.no_such_name)
    with pytest.raises(ImportError, match=r"cannot patch scaper.*no_such_name"):
        exec("from separation.nussl_compat import scaper")


def test_public_names_of_nussl_are_the_originals():
    import sklearn.cluster
    import sklearn.decomposition
    import sklearn.mixture

    assert nussl.ml.cluster.KMeans is sklearn.cluster.KMeans
    assert nussl.ml.cluster.GaussianMixture is sklearn.mixture.GaussianMixture
    assert nussl.ml.NMF is sklearn.decomposition.NMF
    names: dict = {}
    exec("from nussl.ml.train import closures, trainer, BackwardsEvents as events", names)
    assert names["events"] is names["trainer"].BackwardsEvents is names["closures"].BackwardsEvents
    assert issubclass(nussl.ml.train.closures.TrainClosure, names["closures"].Closure)
    exec("from nussl.ml.train import *", names)
    assert {"loss", "closures", "BackwardsEvents", "create_train_and_validation_engines"} < {*names}
    assert {"loss", "closures", "cache_dataset"} < {*dir(nussl.ml.train)}
    with pytest.raises(AttributeError, match=r"'nussl\.ml\.train' has no attribute 'no_such_name'"):
        nussl.ml.train.no_such_name  # noqa: B018


def test_other_code_imports_as_always_while_a_package_has_placeholders():
    with nussl_compat._imported_on_use("nussl", {"wave": ()}):
        exec("import wave", others := {"__name__": "another"})
        exec("import wave", theirs := {"__name__": "nussl.core"})
    assert others["wave"] is sys.modules["wave"]
    assert theirs["wave"] is not sys.modules["wave"] and theirs["wave"].open is sys.modules["wave"].open


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("window", nussl.constants.ALL_WINDOWS)
def test_every_window_of_nussl_works_in_an_stft(window):
    mixture = noise()
    mixture.stft_params = nussl.STFTParams(window_length=256, hop_length=64, window_type=window)
    assert mixture.stft().shape[0] == 129
    assert {"hamming", "hann", "blackman"} < set(nussl.constants.ALL_WINDOWS)


def test_the_inverse_stft_restores_the_signal():
    mixture = noise(channels=2)
    before = mixture.audio_data.copy()
    mixture.stft_params = nussl.STFTParams(window_length=256, hop_length=64, window_type="sqrt_hann")
    mixture.stft()
    mixture.istft()
    np.testing.assert_allclose(mixture.audio_data, before, atol=1e-10)


def test_a_signal_is_resampled():
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = nussl.AudioSignal(audio_data_array=np.sin(2 * np.pi * 440 * time), sample_rate=SAMPLE_RATE)
    tone.resample(4000)
    assert (tone.sample_rate, tone.signal_length) == (4000, 4000)
    assert np.argmax(np.abs(np.fft.rfft(tone.audio_data[0]))) == 440


def test_the_resampler_can_be_chosen():
    quick, best = noise(), noise()
    quick.resample(4000, res_type="polyphase")
    best.resample(4000, res_type="soxr_vhq")
    assert quick.signal_length == best.signal_length == 4000
    assert not np.allclose(quick.audio_data, best.audio_data)


def test_rms_is_measured_in_windows():
    steady = nussl.AudioSignal(audio_data_array=np.full(SAMPLE_RATE, 0.5), sample_rate=SAMPLE_RATE)
    windows = steady.rms(win_len=256)
    assert windows.shape == (1 + SAMPLE_RATE // 128,)
    np.testing.assert_allclose(windows, 0.5, rtol=1e-6, err_msg="the first and last window are as loud as the others")


def test_a_mel_projection_has_the_filters_of_the_sample_rate():
    import librosa

    projection = nussl.ml.networks.modules.MelProjection(SAMPLE_RATE, num_frequencies=129, num_mels=20, normalize=False)
    expected = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=256, n_mels=20)
    np.testing.assert_allclose(projection.transform.weight.detach().numpy(), expected, rtol=1e-6)


# ---------------------------------------------------------------- models


@pytest.fixture
def checkpoint(tmp_path):
    """A mask network saved by nussl with the metadata that its separation classes read."""
    config = nussl.ml.networks.builders.build_recurrent_mask_inference(
        num_features=129,
        hidden_size=4,
        num_layers=1,
        bidirectional=False,
        dropout=0.0,
        num_sources=2,
        mask_activation="sigmoid",
    )
    model = nussl.ml.SeparationModel(config)
    stft_params = nussl.STFTParams(window_length=256, hop_length=64, window_type="sqrt_hann")
    transform = nussl.datasets.transforms.Compose(
        [nussl.datasets.transforms.PhaseSensitiveSpectrumApproximation(), nussl.datasets.transforms.ToSeparationModel()]
    )
    metadata = {
        "sample_rate": SAMPLE_RATE,
        "num_channels": 1,
        "stft_params": stft_params,
        "train_dataset": {"name": "toy", "stft_params": stft_params, "transforms": transform},
    }
    path = tmp_path / "best.model.pth"
    model.save(str(path), metadata)
    return model, path


def test_a_saved_model_is_loaded_with_its_metadata(checkpoint):
    model, path = checkpoint
    loaded, metadata = nussl.ml.SeparationModel.load(str(path))
    assert metadata["stft_params"] == nussl.STFTParams(256, 64, "sqrt_hann")
    for name, weights in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weights), name


def test_a_saved_model_separates(checkpoint):
    _, path = checkpoint
    mixture = noise()
    estimates = nussl.separation.deep.DeepMaskEstimation(mixture, model_path=str(path), mask_type="soft")()
    assert [estimate.audio_data.shape for estimate in estimates] == [mixture.audio_data.shape] * 2
    assert all(np.isfinite(estimate.audio_data).all() for estimate in estimates)


def test_torch_itself_still_refuses_pickles(checkpoint):
    with pytest.raises(Exception, match="weights_only"):
        torch.load(checkpoint[1])


# ---------------------------------------------------------------- separation


def test_duet_separates_two_panned_sources():
    left, right = (noise(seed=seed).audio_data[0] * (np.arange(SAMPLE_RATE) // 1000 % 2 == seed) for seed in (0, 1))
    mixture = nussl.AudioSignal(
        audio_data_array=np.stack([0.9 * left + 0.2 * right, 0.2 * left + 0.9 * right]), sample_rate=SAMPLE_RATE
    )
    mixture.stft_params = nussl.STFTParams(window_length=256, hop_length=64)
    duet = nussl.separation.spatial.Duet(mixture, num_sources=2)
    estimates = [estimate.audio_data.mean(axis=0) for estimate in duet()]
    correlations = np.abs([[np.corrcoef(estimate, source)[0, 1] for source in (left, right)] for estimate in estimates])
    assert max(np.trace(correlations), np.trace(correlations[::-1])) > 1.6


def test_overlap_and_add_with_its_default_window_restores_the_mixture():
    mixture = noise(seconds=2)
    before = mixture.audio_data.copy()
    separation = nussl.separation.benchmark.MixAsEstimate(mixture, num_sources=2)
    estimates = nussl.separation.composite.OverlapAdd(separation, window_duration=0.5)()
    np.testing.assert_allclose(estimates[0].audio_data, before, atol=1e-10)


# ---------------------------------------------------------------- reports


def test_a_report_card_has_mean_deviation_and_median(tmp_path):
    for index, value in enumerate([1.0, 2.0, 6.0]):
        scores = {
            source: {"SI-SDR": [value], "SI-SIR": [value + offset]} for source, offset in (("vocals", 1), ("bass", 3))
        }
        (tmp_path / f"{index}.json").write_text(json.dumps(scores))
    frame = nussl.evaluation.aggregate_score_files(sorted(str(path) for path in tmp_path.glob("*.json")))
    card = nussl.evaluation.report_card(frame, notes="three items")
    mean, median = card.split("MEDIAN OF METRICS")
    assert re.search(r"SI-SDR\D+3\.00 \+/-\s+2\.36", mean), card
    assert re.search(r"SI-SDR\D+2\.00", median), card
    assert re.search(r"SI-SIR\D+5\.00", mean), card
    assert re.search(r"#\D+6\D+3\D+3", mean), card
    assert "three items" in card


# ---------------------------------------------------------------- nussl's Cache


class Ramps(nussl.datasets.BaseDataset):
    """Items that count how often they are computed."""

    computed = 0

    def get_items(self, folder):
        return list(range(5))

    def process_item(self, item):
        Ramps.computed += 1
        return {"ramp": np.arange(1000) + item, "name": f"item {item}"}


def test_the_cache_returns_what_was_written(tmp_path):
    Cache = nussl.datasets.transforms.Cache
    dataset = Ramps(
        "unused", transform=Cache(str(tmp_path / "cache"), cache_size=5, overwrite=True), cache_populated=False
    )
    written = [dataset[index] for index in range(5)]
    computed = Ramps.computed
    dataset.cache_populated = True
    read = [dataset[index] for index in range(5)]
    again = Cache(str(tmp_path / "cache"), overwrite=False)
    for index in range(5):
        for item in (read[index], again({"index": index})):
            assert item["name"] == written[index]["name"] == f"item {index}"
            np.testing.assert_array_equal(item["ramp"], np.arange(1000) + index)
    assert Ramps.computed == computed, "a populated cache must not compute items again"


def test_the_cache_holds_one_compressed_chunk_per_item(tmp_path):
    cache = nussl.datasets.transforms.Cache(str(tmp_path / "cache"), cache_size=3, overwrite=True)
    for index in range(3):
        assert cache.cache.nchunks_initialized == index
        cache({"index": index, "silence": np.zeros(10_000)})
    chunks = sorted(path for path in (tmp_path / "cache").iterdir() if not path.name.startswith("."))
    assert [chunk.name for chunk in chunks] == ["0", "1", "2"]
    assert max(chunk.stat().st_size for chunk in chunks) < 8_000
    assert "3" in str(cache.info)


def test_an_item_that_was_never_cached_is_an_error(tmp_path):
    cache = nussl.datasets.transforms.Cache(str(tmp_path / "cache"), cache_size=2, overwrite=True)
    cache({"index": 0})
    cache = nussl.datasets.transforms.Cache(str(tmp_path / "cache"), overwrite=False)
    with pytest.raises(nussl.datasets.transforms.TransformException, match="index 1"):
        cache({"index": 1})
    with pytest.raises(IndexError, match="item 2 of a cache of 2 items"):
        cache({"index": 2})


def test_overwriting_empties_a_cache(tmp_path):
    nussl.datasets.transforms.Cache(str(tmp_path / "cache"), cache_size=2, overwrite=True)({"index": 0})
    cache = nussl.datasets.transforms.Cache(str(tmp_path / "cache"), cache_size=1, overwrite=True)
    assert cache.cache[0] is None


def test_loader_workers_fill_and_read_the_cache(tmp_path):
    cache = nussl.datasets.transforms.Cache(str(tmp_path / "cache"), cache_size=5, overwrite=True)
    transform = nussl.datasets.transforms.Compose([cache, nussl.datasets.transforms.ToSeparationModel()])
    dataset = Ramps("unused", transform=transform, cache_populated=False)
    nussl.ml.train.cache_dataset(torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2))
    dataset.cache_populated = True
    for index, batch in enumerate(torch.utils.data.DataLoader(dataset, batch_size=1, num_workers=2)):
        assert torch.equal(batch["ramp"][0], torch.arange(1000) + index)


# ---------------------------------------------------------------- scaper


@pytest.mark.skipif(not shutil.which("sox"), reason="scaper needs the sox program")
@pytest.mark.parametrize("time_stretch", [None, ("const", 0.5)])
def test_scaper_mixes_an_event_at_its_time(tmp_path, time_stretch):
    (tmp_path / "sources" / "vocals").mkdir(parents=True)
    soundfile.write(
        tmp_path / "sources" / "vocals" / "song.wav", noise(seconds=2).audio_data[0], SAMPLE_RATE, subtype="PCM_16"
    )
    scene = scaper.Scaper(1.0, str(tmp_path / "sources"), str(tmp_path / "sources"), random_state=0)
    scene.sr, scene.ref_db = SAMPLE_RATE, -40
    scene.add_event(
        label=("const", "vocals"),
        source_file=("choose", []),
        source_time=("const", 0.25),
        event_time=("const", 0.5),
        event_duration=("const", 0.5),
        snr=("const", 0),
        pitch_shift=None,
        time_stretch=time_stretch,
    )
    scene.generate(str(tmp_path / "0.wav"), str(tmp_path / "0.jams"), save_isolated_events=True)
    samples, rate = soundfile.read(tmp_path / "0.wav")
    assert (len(samples), rate) == (SAMPLE_RATE, SAMPLE_RATE)
    assert not samples[: SAMPLE_RATE // 2].any() and samples[SAMPLE_RATE // 2 :].any()
    [event] = jams.load(str(tmp_path / "0.jams")).annotations.search(namespace="scaper")[0].data
    assert (event.time, event.value["source_time"], event.value["label"]) == (0.5, 0.25, "vocals")
    dataset = nussl.datasets.Scaper(str(tmp_path), strict_sample_rate=True, sample_rate=SAMPLE_RATE)
    assert list(dataset[0]["sources"]) == ["vocals::0"]


# ---------------------------------------------------------------- the only way in


def code_of(path: Path) -> list[str]:
    """The Python code in a file: one text, or one per cell of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return [text]
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells]


def imported_modules(code: str) -> set[str]:
    """The top-level packages that a piece of code imports, by statement, `__import__` or `import_module`."""
    try:
        tree = ast.parse(code)
    except SyntaxError:  # rules of Snakemake and magics of notebooks: read line by line
        statements = [line.strip() for line in code.splitlines() if re.match(r"\s*(import|from)\s", line)]
        return {name for line in statements for name in imported_modules(line.rstrip("(\\ ") + _completion(line))}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("__import__", "import_module", "importorskip"):
                found.add(str(node.args[0].value).split(".")[0])
    return found


def _completion(line: str) -> str:
    """Completes the first line of a multi-line import to a statement."""
    return " x" if line.rstrip().endswith(("(", "\\")) else ""


def test_imports_are_found_in_every_kind_of_code():
    assert imported_modules("import os, nussl.core as n") == {"os", "nussl"}
    assert imported_modules("def f():\n    from scaper.core import x") == {"scaper"}
    assert imported_modules("importlib.import_module('nussl')") == {"nussl"}
    assert imported_modules("%matplotlib inline\nimport nussl") == {"nussl"}
    assert imported_modules("rule a:\n    input: 'x'\n    run:\n        from nussl import (\n  a)\n") == {"nussl"}
    assert imported_modules("from separation.nussl_compat import nussl, scaper") == {"separation"}


def test_nussl_is_imported_only_through_nussl_compat():
    folders = [ROOT / "workflow", ROOT / "benchmarks", ROOT / "tests"]
    files = [path for folder in folders for kind in ("*.py", "*.smk", "*.ipynb") for path in folder.rglob(kind)]
    files += [ROOT / "Snakefile"] if (ROOT / "Snakefile").exists() else []
    compat = ROOT / "workflow" / "scripts" / "separation" / "nussl_compat.py"
    assert compat in files
    wrong = [
        str(path.relative_to(ROOT))
        for path in sorted(files)
        if path != compat and ".ipynb_checkpoints" not in path.parts
        for code in code_of(path)
        if imported_modules(code) & {"nussl", "scaper"}
    ]
    assert wrong == [], "import them by `from separation.nussl_compat import nussl` (or scaper)"
