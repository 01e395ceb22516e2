"""Every metric on every kind of faulty audio: which sources have a score, and which one."""

import numpy as np
import pytest

from separation.evaluation.metrics import score_item
from separation.evaluation.ratios import MAX_DB
from separation.experiment.testers import read_testers

RATE = 8000
TESTERS = {
    "SI-SDR": {"BSSEvalScale": {}},
    "SNR": {"BSSEvalScale": {"best_permutation_key": "SNR"}},
    "SDR": {"BSSEvalV4": {"window": 0.5, "filters_len": 64}},
    "V3-SDR": {"BSSEvalV3": {}},
    "uSDR": {"uSDR": {}},
    "STOI": {"STOI": {}},
    "ESTOI": {"STOI": {"extended": True}},
    "PESQ": {"PESQ": {}},
}
RATIOS = ("SI-SDR", "SNR", "SDR", "V3-SDR", "uSDR")
PERFECT = {"STOI": 1.0, "ESTOI": 1.0, "PESQ": 4.549, "uSDR": None}

NONE, PERFECT_SCORE, USUAL, NUMBER = "no score", "perfect", "as without the fault", "a number"


def spoken(rng, samples, channels):
    """Speech-like audio (channels, samples): syllables of a harmonic voice."""
    time = np.arange(samples) / RATE
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time), 0, None)
    voice = sum(np.sin(2 * np.pi * rng.uniform(100, 250) * k * time + rng.uniform(0, 6)) / k for k in range(1, 15))
    noise = rng.normal(size=(channels, samples))
    return 0.1 * syllables * (voice + 0.3 * noise) + 0.002 * rng.normal(size=(channels, samples))


def scene(channels=2, samples=int(1.6 * RATE)):
    """Two sources, their estimates and the mixture."""
    rng = np.random.default_rng(0)
    sources = [spoken(rng, samples, channels) for _ in range(2)]
    noise = 0.005 * rng.normal(size=(channels, samples))
    return sources, [sources[0] + 0.2 * sources[1] + noise, sources[1] + 0.3 * sources[0] - noise], sum(sources)


def with_samples(signal, value, where=slice(100, 101)):
    changed = signal.copy()
    changed[..., where] = value
    return changed


def estimate_is(change):
    """A fault of the first estimate."""
    sources, estimates, mixture = scene()
    return sources, [change(estimates[0]), estimates[1]], mixture


def source_is(change, estimates=None):
    """A fault of the first source."""
    sources, usual, _ = scene()
    sources = [change(sources[0]), sources[1]]
    return sources, usual if estimates is None else estimates(sources), sum(sources)


def one_sided(source):
    return source * np.array([[1.0], [0.0]])


def cancelling(source):
    return source[:1] * np.array([[1.0], [-1.0]])


FAULTS = {
    "NaN in an estimate": lambda: estimate_is(lambda audio: with_samples(audio, np.nan)),
    "an infinite sample": lambda: estimate_is(lambda audio: with_samples(audio, -np.inf)),
    "an estimate of NaN": lambda: estimate_is(lambda audio: np.full_like(audio, np.nan)),
    "NaN in a source": lambda: source_is(lambda audio: with_samples(audio, np.nan)),
    "NaN in the mixture": lambda: (*scene()[:2], with_samples(scene()[2], np.nan)),
    "a silent estimate": lambda: estimate_is(np.zeros_like),
    "a constant estimate": lambda: estimate_is(lambda audio: np.full_like(audio, 0.1)),
    "a silent source": lambda: source_is(np.zeros_like),
    "a constant source": lambda: source_is(lambda audio: np.full_like(audio, 0.1)),
    "a source below -120 dB": lambda: source_is(lambda audio: 1e-7 * audio / np.abs(audio).max()),
    "an exact one-sided source": lambda: source_is(one_sided, list),
    "an exact source whose channels cancel": lambda: source_is(cancelling, list),
    "exact estimates": lambda: (scene()[0], scene()[0], scene()[2]),
    "the same estimate twice": lambda: (scene()[0], [scene()[1][0]] * 2, scene()[2]),
    "100 samples": lambda: scene(samples=100),
    "one sample": lambda: scene(samples=1),
    "two silent sources": lambda: ([np.zeros((2, RATE))] * 2, [np.zeros((2, RATE))] * 2, np.zeros((2, RATE))),
    "one channel": lambda: scene(channels=1),
    "one source, with noise in the mixture": lambda: (scene()[0][:1], scene()[1][:1], scene()[2]),
}
# fault -> the score of the first and the second source, for all metrics or by metric
EXPECTED = {
    "NaN in an estimate": (NONE, USUAL),
    "an infinite sample": (NONE, USUAL),
    "an estimate of NaN": (NONE, USUAL),
    "NaN in a source": (NONE, NONE),
    "NaN in the mixture": (NONE, NONE),
    "a silent estimate": {
        "SI-SDR": (-MAX_DB, USUAL), "SNR": (0.0, USUAL), "SDR": (NONE, USUAL), "V3-SDR": (-MAX_DB, USUAL),
        "uSDR": (0.0, USUAL), "STOI": (0.0, USUAL), "ESTOI": (0.0, USUAL), "PESQ": (NONE, USUAL),
    },
    "a constant estimate": {
        "SI-SDR": (-MAX_DB, USUAL), "SNR": (0.0, USUAL), **dict.fromkeys(("SDR", "V3-SDR", "uSDR"), (NUMBER, USUAL)),
        **dict.fromkeys(("STOI", "ESTOI", "PESQ"), (NUMBER, USUAL)),
    },
    **dict.fromkeys(("a silent source", "a constant source", "a source below -120 dB"), (NONE, NUMBER)),
    "an exact one-sided source": (PERFECT_SCORE, PERFECT_SCORE),
    "an exact source whose channels cancel": (PERFECT_SCORE, PERFECT_SCORE),
    "exact estimates": (PERFECT_SCORE, PERFECT_SCORE),
    "the same estimate twice": (NUMBER, NUMBER),
    "100 samples": {
        **dict.fromkeys(("SI-SDR", "SNR", "uSDR", "SDR"), (NUMBER, NUMBER)),
        **dict.fromkeys(("V3-SDR", "STOI", "ESTOI", "PESQ"), (NONE, NONE)),
    },
    "one sample": (NONE, NONE),
    "two silent sources": (NONE, NONE),
    "one channel": (NUMBER, NUMBER),
    "one source, with noise in the mixture": (USUAL,),
}  # fmt: skip


def scored(metric, sources, estimates, mixture, permuted):
    ((name, args),) = TESTERS[metric].items()
    testers = read_testers({name: {**args, "compute_permutation": permuted}}, RATE)
    names = [f"source {index}" for index in range(len(sources))]
    found = score_item(dict(zip(names, sources, strict=True)), estimates, mixture, testers=testers, sample_rate=RATE)
    return [found.scores[name] for name in names], list(found.assignment.values()), found.non_finite


@pytest.fixture(scope="module")
def usual():
    """The scores without faults, by metric."""
    return {metric: [row[metric] for row in scored(metric, *scene(), False)[0]] for metric in TESTERS}


@pytest.mark.parametrize("permuted", [False, True], ids=["in order", "permuted"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("metric", TESTERS)
def test_scores_of_faulty_audio(metric, fault, permuted, usual):
    sources, estimates, mixture = FAULTS[fault]()
    if permuted and len(estimates) > 1:
        estimates = estimates[::-1]
    rows, order, _ = scored(metric, sources, estimates, mixture, permuted)
    expected = EXPECTED[fault][metric] if isinstance(EXPECTED[fault], dict) else EXPECTED[fault]
    for index, (row, wanted) in enumerate(zip(rows, expected, strict=True)):
        value = row[metric]
        # an improvement is the difference of two limited ratios
        assert all(np.isnan(other) or abs(other) <= 2 * MAX_DB for other in row.values())
        if wanted == NONE:
            assert all(np.isnan(other) for name, other in row.items() if name != "LEAKAGE")
        elif wanted == PERFECT_SCORE:
            assert value >= 70 if metric in RATIOS else value == pytest.approx(PERFECT[metric], abs=0.01)
        elif wanted == USUAL:
            assert value == pytest.approx(usual[metric][index], abs=0.02)
        elif wanted == NUMBER:
            assert np.isfinite(value)
        else:
            assert value == pytest.approx(wanted, abs=0.02)
    if permuted and fault in ("NaN in an estimate", "a silent estimate", "exact estimates"):
        assert order == [1, 0]


def test_estimates_with_non_finite_samples_are_named():
    sources, estimates, mixture = FAULTS["NaN in an estimate"]()
    assert scored("SI-SDR", sources, estimates, mixture, False)[2] == ("source 0",)
    assert scored("SI-SDR", sources, estimates[::-1], mixture, True)[2] == ("source 0",)
    assert scored("SI-SDR", *FAULTS["NaN in a source"](), False)[2] == ("source 0", "source 1")
    assert scored("SI-SDR", *scene(), False)[2] == ()


@pytest.mark.parametrize("fault", ["a silent source", "a constant source", "a source below -120 dB"])
def test_a_source_alone_has_no_improvement_and_no_interference(fault):
    sources, estimates, mixture = FAULTS[fault]()
    silent, alone = scored("SI-SDR", sources, estimates, mixture, False)[0]
    for name in ("SI-SDRi", "SI-SIR", "SI-SIRi", "SD-SDRi", "SNRi"):
        assert np.isnan(alone[name]), name
    for name in ("SI-SDR", "SI-SAR", "SD-SDR", "SNR", "SRR"):
        assert abs(alone[name]) < 60, name
    assert np.isnan(scored("V3-SDR", sources, estimates, mixture, False)[0][1]["V3-SDRi"])
    assert np.isnan(scored("SDR", sources, estimates, mixture, False)[0][1]["SIR"])
    # the estimate that leaks into the silent source, relative to the mixture
    energy = [np.square(audio - audio.mean(-1, keepdims=True)).sum() for audio in (estimates[0], mixture)]
    assert silent["LEAKAGE"] == pytest.approx(10 * np.log10(energy[0] / energy[1]))
    assert np.isnan(alone["LEAKAGE"])


def test_a_source_alone_in_one_channel_is_compared_with_the_mixture_in_the_other():
    sources, estimates, mixture = source_is(one_sided)
    both = scored("SI-SDR", sources, estimates, mixture, False)[0][1]
    left = scored("SI-SDR", [s[:1] for s in sources], [e[:1] for e in estimates], mixture[:1], False)[0][1]
    assert both["SI-SDRi"] == pytest.approx(left["SI-SDRi"]) and np.isfinite(both["SI-SDRi"])


def test_a_single_source_in_noise_has_an_improvement():
    (row,) = scored("SI-SDR", *FAULTS["one source, with noise in the mixture"](), False)[0]
    assert 5 < row["SI-SDRi"] < 40


@pytest.mark.parametrize("rounding", [1, 3])
def test_a_source_alone_in_a_file_of_16_bits_has_no_improvement(rounding):
    # the mixture and the source are rounded separately
    sources, estimates, _ = scene()
    mixture = np.round(sources[1] * 2**15 / rounding) * rounding / 2**15
    row = scored("SI-SDR", [np.zeros_like(mixture), sources[1]], estimates, mixture, False)[0][1]
    assert np.isnan(row["SI-SDRi"]) and np.isfinite(row["SI-SDR"])


@pytest.mark.parametrize("key", ["SI-SDRi", "SI-SIR"])
def test_the_order_around_a_source_alone_is_right_by_any_key(key):
    sources, estimates, mixture = FAULTS["a silent source"]()
    estimates = [sources[1] + 0.01 * estimates[0], 0.001 * estimates[1]]
    testers = read_testers({"BSSEvalScale": {"compute_permutation": True, "best_permutation_key": key}})
    found = score_item({"a": sources[0], "b": sources[1]}, estimates, mixture, testers=testers, sample_rate=RATE)
    assert found.assignment == {"a": 1, "b": 0}


def test_estoi_of_silence_is_reproducible():
    sources, estimates, mixture = scene(channels=1)
    estimates = [with_samples(estimate, 0.0, slice(0, RATE)) for estimate in estimates]
    np.random.seed(1)
    first = scored("ESTOI", sources, estimates, mixture, False)[0]
    np.random.seed(2)
    assert scored("ESTOI", sources, estimates, mixture, False)[0] == first


def test_mono_estimates_of_stereo_sources_are_refused():
    sources, estimates, mixture = scene()
    with pytest.raises(ValueError, match=r"expected \(channels, samples\) .* to be the same"):
        scored("SI-SDR", sources, [estimate[:1] for estimate in estimates], mixture, False)
