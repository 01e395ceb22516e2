from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from separation.errors import UserError
from separation.evaluation.metrics import score_item
from separation.evaluation.ratios import MAX_DB, best_assignment
from separation.experiment.metric_definitions import METRIC_DEFINITIONS, definitions_section
from separation.experiment.testers import METRICS_OF, SCALE_METRICS, read_testers, windows_in_samples
from small_dataset import SAMPLE_RATE, source_audio

PERMUTED = read_testers([{"BSSEvalScale": {"compute_permutation": True, "best_permutation_key": "SI-SDR"}}])
IN_ORDER = read_testers(["BSSEvalScale"])


def score(references, estimates, mixture=None, testers=IN_ORDER):
    """Scores and assignment as lists in the order of the references."""
    mixture = sum(references) if mixture is None else mixture
    sources = {f"source {index}": reference for index, reference in enumerate(references)}
    found = score_item(sources, estimates, mixture, testers=testers, sample_rate=SAMPLE_RATE)
    assert list(found.scores) == list(found.assignment) == list(sources)
    return SimpleNamespace(scores=list(found.scores.values()), assignment=list(found.assignment.values()))


def three_sources(seed=0, channels=1):
    rng = np.random.default_rng(seed)
    labels = ("vocals", "bass", "drums")
    return [np.stack([source_audio(label, rng) for _ in range(channels)]) for label in labels], rng


def noisy(references, rng, leak=0.3):
    """Estimates with interference, artifacts and a wrong gain, like those of a model."""
    total = sum(references)
    return [0.8 * s + leak * (total - s) + 0.01 * rng.normal(size=s.shape) for s in references]


def si_sdr(reference, estimate):
    """Le Roux et al. 2019, equation 5, implemented independently."""
    s, e = reference - reference.mean(), estimate - estimate.mean()
    target = np.dot(e, s) / np.dot(s, s) * s
    return 10 * np.log10(np.sum(target**2) / np.sum((e - target) ** 2))


@pytest.mark.parametrize("snr", [-12.0, 0.0, 7.5, 30.0])
def test_snr_equals_the_level_of_added_noise(snr):
    rng = np.random.default_rng(0)
    source = source_audio("vocals", rng)
    noise = rng.normal(size=source.shape)
    source, noise = source - source.mean(), noise - noise.mean()
    noise *= np.linalg.norm(source) / np.linalg.norm(noise) * 10 ** (-snr / 20)
    found = score([source[None]], [(source + noise)[None]]).scores[0]
    assert found["SNR"] == pytest.approx(snr, abs=1e-6)


def test_a_mixture_of_two_sources_at_a_known_level_has_that_snr_and_no_improvement():
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=(1, SAMPLE_RATE)) for _ in range(2))
    one, other = one - one.mean(), other - other.mean()
    other *= np.linalg.norm(one) / np.linalg.norm(other) * 10 ** (-3 / 20)
    found = score([one, other], [one + other, one + other]).scores
    assert [row["SNR"] for row in found] == pytest.approx([3.0, -3.0], abs=1e-6)
    for row in found:
        assert [row[f"{name}i"] for name in ("SI-SDR", "SI-SIR", "SD-SDR", "SNR")] == [0, 0, 0, 0]


def test_si_sdr_follows_the_formula_of_the_paper():
    references, rng = three_sources()
    estimates = noisy(references, rng)
    for row, reference, estimate in zip(score(references, estimates).scores, references, estimates, strict=True):
        assert row["SI-SDR"] == pytest.approx(si_sdr(reference[0], estimate[0]), abs=1e-6)
        assert row["SI-SDRi"] == pytest.approx(row["SI-SDR"] - si_sdr(reference[0], sum(references)[0]), abs=1e-6)


def test_scale_invariant_metrics_ignore_gain_and_offset():
    references, rng = three_sources()
    estimates = noisy(references, rng)
    plain = score(references, estimates).scores
    changed = score(references, [3.7 * estimate + 0.2 for estimate in estimates]).scores
    for one, other in zip(plain, changed, strict=True):
        for name in ("SI-SDR", "SI-SIR", "SI-SAR"):
            assert one[name] == pytest.approx(other[name], abs=1e-6)
        assert other["SNR"] < one["SNR"] - 3


def test_interference_lowers_sir_and_artifacts_lower_sar():
    references, rng = three_sources()
    leaking = score(references, [s + 0.1 * (sum(references) - s) for s in references]).scores
    noise = [s + 0.02 * rng.normal(size=s.shape) for s in references]
    for leaks, noises in zip(leaking, score(references, noise).scores, strict=True):
        assert leaks["SI-SIR"] < 40 and leaks["SI-SAR"] > 90
        assert noises["SI-SIR"] > noises["SI-SAR"] + 15


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_those_of_nussl_within_a_thousandth_of_a_decibel(channels, seed):
    from separation.nussl_compat import nussl

    references, rng = three_sources(seed, channels)
    estimates = [noisy(references, rng)[k] for k in (2, 0, 1)]
    ours = score(references, estimates, testers=PERMUTED)
    signals = [nussl.AudioSignal(audio_data_array=a, sample_rate=SAMPLE_RATE) for a in references + estimates]
    evaluator = nussl.evaluation.BSSEvalScale(
        signals[:3], signals[3:], source_labels=["0", "1", "2"], compute_permutation=True, best_permutation_key="SI-SDR"
    )
    theirs = evaluator.evaluate()
    assert ours.assignment == [1, 2, 0]
    for source, row in enumerate(ours.scores):
        shared = set(row) & set(theirs[str(source)])
        assert shared == set(SCALE_METRICS) - {"SI-SIRi", "LEAKAGE"}
        for name in shared:
            assert row[name] == pytest.approx(np.mean(theirs[str(source)][name]), abs=1e-3), name


def test_permuted_estimates_are_matched_and_ordered_ones_stay():
    references, rng = three_sources()
    estimates = noisy(references, rng)
    straight = score(references, estimates)
    turned = score(references, estimates[::-1], testers=PERMUTED)
    assert (straight.assignment, turned.assignment) == ([0, 1, 2], [2, 1, 0])
    for one, other in zip(straight.scores, turned.scores, strict=True):
        assert one == pytest.approx(other, nan_ok=True)
    assert score(references, estimates[::-1]).scores[0]["SI-SDR"] < straight.scores[0]["SI-SDR"] - 5


def test_the_best_estimates_are_used_if_there_are_more_than_sources():
    references, rng = three_sources()
    estimates = [0.01 * rng.normal(size=references[0].shape), *noisy(references, rng)]
    assert score(references, estimates, testers=PERMUTED).assignment == [1, 2, 3]
    with pytest.raises(UserError, match=r"num_sources: expected 3 estimates.*found 4"):
        score(references, estimates)
    with pytest.raises(UserError, match=r"num_sources: expected 3 estimates.*found 2"):
        score(references, estimates[:2], testers=PERMUTED)


def test_silent_references_have_no_scores_and_do_not_affect_others():
    references, rng = three_sources()
    estimates = noisy(references[:2], rng)
    alone = score(references[:2], estimates, testers=PERMUTED)
    silence, hum = np.full_like(references[0], 0.1), 0.001 * rng.normal(size=references[0].shape)
    found = score([silence, *references[:2]], [estimates[1], hum, estimates[0]], sum(references[:2]), PERMUTED)
    assert all(np.isnan(value) for name, value in found.scores[0].items() if name != "LEAKAGE")
    assert found.assignment == [1, 2, 0]
    for one, other in zip(found.scores[1:], alone.scores, strict=True):
        assert one == pytest.approx(other, nan_ok=True)


def test_perfect_and_silent_estimates_have_scores_at_the_limits():
    references, _ = three_sources()
    perfect = score(references, references).scores[0]
    assert perfect["SI-SDR"] == perfect["SNR"] == MAX_DB
    silent = score(references, [np.zeros_like(reference) for reference in references]).scores[0]
    assert silent["SI-SDR"] == silent["SI-SIR"] == silent["SD-SDR"] == -MAX_DB
    assert silent["SNR"] == pytest.approx(0.0)


def test_sir_and_sar_can_be_left_out():
    references, rng = three_sources()
    testers = read_testers({"BSSEvalScale": {"compute_sir_sar": False}})
    row = score(references, noisy(references, rng), testers=testers).scores[0]
    assert np.isnan(row["SI-SIR"]) and np.isnan(row["SI-SAR"]) and np.isfinite(row["SI-SDR"])


def test_bss_eval_v4_can_be_combined_with_scale_invariant_metrics():
    rng = np.random.default_rng(0)
    references = [source_audio(label, rng, 2 * SAMPLE_RATE)[None] for label in ("vocals", "bass")]
    estimates = noisy(references, rng, leak=0.1)[::-1]
    testers = read_testers([{name: {"compute_permutation": True}} for name in ("BSSEvalScale", "BSSEvalV4")])
    found = score(references, estimates, testers=testers)
    assert found.assignment == [1, 0]
    for row in found.scores:
        assert {"SI-SDR", "SDR", "ISR", "SIR", "SAR"} <= set(row)
        assert row["SDR"] > 5
    silent = score([np.zeros_like(references[0]), references[0]], [estimates[0], estimates[1]], references[0], testers)
    assert np.isnan(silent.scores[0]["SDR"]) and silent.scores[1]["SDR"] > 5


def spoken(rng, samples=16000):
    """A signal with the envelope of speech, for STOI and PESQ; shape (1, samples)."""
    time = np.arange(samples) / SAMPLE_RATE
    syllables = np.clip(np.sin(2 * np.pi * 3 * time + rng.uniform(0, 6)), 0, None) ** 2
    voice = sum(np.sin(2 * np.pi * 140 * k * time + rng.uniform(0, 6)) / k for k in range(1, 20))
    return (0.1 * syllables * (voice + 0.3 * rng.normal(size=samples)))[None]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("channels", [1, 2])
def test_scale_metrics_equal_those_of_torchmetrics(channels, seed):
    from torch import from_numpy
    from torchmetrics.functional import audio

    references, rng = three_sources(seed, channels)
    estimates = noisy(references, rng)
    found = score(references, estimates).scores
    for row, reference, estimate in zip(found, references, estimates, strict=True):
        pair = from_numpy(estimate), from_numpy(reference)
        for metric, theirs in (
            ("SI-SDR", audio.scale_invariant_signal_distortion_ratio(*pair, zero_mean=True)),
            ("SNR", audio.signal_noise_ratio(*pair, zero_mean=True)),
        ):
            assert row[metric] == pytest.approx(float(theirs.mean()), abs=1e-3)


def test_permutations_equal_those_of_torchmetrics():
    from torch import from_numpy
    from torchmetrics.functional import audio

    references, rng = three_sources(3)
    estimates = [noisy(references, rng)[index] for index in (2, 0, 1)]
    found = score(references, estimates, testers=PERMUTED)
    batch = [from_numpy(np.concatenate(signals))[None] for signals in (estimates, references)]
    best, order = audio.permutation_invariant_training(
        *batch, audio.scale_invariant_signal_distortion_ratio, eval_func="max", zero_mean=True
    )
    assert found.assignment == order[0].tolist()
    assert np.mean([row["SI-SDR"] for row in found.scores]) == pytest.approx(float(best), abs=1e-3)


def test_bss_eval_v4_equals_museval():
    from separation.nussl_compat import nussl

    museval = nussl.evaluation.bss_eval.museval
    rng = np.random.default_rng(2)
    references = [source_audio(label, rng, 3 * SAMPLE_RATE)[None] for label in ("vocals", "bass")]
    estimates = noisy(references, rng, leak=0.1)
    arrays = [np.stack([signal.T for signal in signals]) for signals in (references, estimates)]
    sdr, isr, sir, sar = museval.evaluate(*arrays, win=SAMPLE_RATE, hop=SAMPLE_RATE)
    windows = {"window": SAMPLE_RATE, "hop": SAMPLE_RATE}
    found = score(references, estimates, testers=read_testers({"BSSEvalV4": windows})).scores
    for index, row in enumerate(found):
        for metric, theirs in (("SDR", sdr), ("ISR", isr), ("SIR", sir), ("SAR", sar)):
            assert row[metric] == pytest.approx(np.median(theirs[index]), abs=1e-3)


def test_swapped_exact_estimates_are_ordered_by_bss_eval_v4():
    rng = np.random.default_rng(2)
    references = [source_audio(label, rng, 2 * SAMPLE_RATE)[None] for label in ("vocals", "bass", "drums")]
    testers = read_testers({"BSSEvalV4": {"compute_permutation": True}})
    estimates = [references[index] for index in (1, 2, 0)]
    found = score(references, estimates, testers=testers)
    assert found.assignment == [2, 0, 1]
    assert [row["SDR"] for row in found.scores] == [MAX_DB] * 3
    # an estimate too many
    noise = 0.01 * rng.normal(size=references[0].shape)
    assert score(references, [noise, *estimates], testers=testers).assignment == [3, 1, 2]


def test_windows_of_bss_eval_v4_are_seconds_and_samples_in_older_files():
    assert windows_in_samples(None, None, 16000) == (16000, 16000)
    assert windows_in_samples(2.0, 1.5, 44100) == (88200, 66150)
    assert windows_in_samples(0.25, None, 8000) == (2000, 2000)
    assert windows_in_samples(8000, 8000, 44100) == (8000, 8000)
    assert windows_in_samples(8000, 256, 44100) == (8000, 256)
    assert windows_in_samples(None, 66150, 44100) == (44100, 66150)
    for wrong in (0, -1, "1 s", True, float("nan")):
        with pytest.raises(UserError, match=r"BSSEvalV4: window: expected a number of seconds above 0, found"):
            read_testers({"BSSEvalV4": {"window": wrong}})


def test_c_sdr_is_that_of_windows_of_one_second():
    rng = np.random.default_rng(2)
    references = [source_audio(label, rng, 2 * SAMPLE_RATE)[None] for label in ("vocals", "bass")]
    estimates = noisy(references, rng, leak=0.1)
    for row in score(references, estimates, testers=read_testers(["BSSEvalV4"])).scores:
        assert row["cSDR"] == row["SDR"]
    other = score(references, estimates, testers=read_testers({"BSSEvalV4": {"window": 2, "hop": 1}})).scores
    assert all("cSDR" not in row for row in other)


@pytest.mark.filterwarnings("ignore:.*mir_eval")
@pytest.mark.parametrize("channels", [1, 2])
def test_bss_eval_v3_equals_mir_eval(channels):
    import mir_eval

    rng = np.random.default_rng(2)
    references = [
        np.stack([source_audio(label, rng) for _ in range(channels)]) for label in ("vocals", "bass", "drums")
    ]
    estimates = [noisy(references, rng, leak=0.1)[index] for index in (2, 0, 1)]
    found = score(references, estimates, testers=read_testers({"BSSEvalV3": {"compute_permutation": True}}))
    assert found.assignment == [1, 2, 0]

    def theirs(guesses, channel):
        arrays = [np.stack([signal[channel] for signal in signals]) for signals in (references, guesses)]
        return mir_eval.separation.bss_eval_sources(*arrays, compute_permutation=False)[0]

    separated = np.mean([theirs([estimates[i] for i in (1, 2, 0)], channel) for channel in range(channels)], axis=0)
    mixed = np.mean([theirs([sum(references)] * 3, channel) for channel in range(channels)], axis=0)
    assert [row["V3-SDR"] for row in found.scores] == pytest.approx(separated, abs=1e-3)
    assert [row["V3-SDRi"] for row in found.scores] == pytest.approx(separated - mixed, abs=1e-3)


def test_u_sdr_is_the_ratio_of_energies_over_both_channels():
    references, rng = three_sources(channels=2)
    references[0][1] *= 0.01
    estimates = noisy(references, rng)
    found = score(references, estimates[::-1], testers=read_testers({"uSDR": {"compute_permutation": True}}))
    assert found.assignment == [2, 1, 0]
    for row, source, estimate in zip(found.scores, references, estimates, strict=True):
        ratio = (np.sum(source**2) + 1e-7) / (np.sum((source - estimate) ** 2) + 1e-7)
        assert row["uSDR"] == pytest.approx(10 * np.log10(ratio))


@pytest.mark.filterwarnings("ignore:.*mir_eval")
def test_bss_eval_of_whole_files_equals_mir_eval():
    import mir_eval

    rng = np.random.default_rng(2)
    references = [source_audio(label, rng, 2 * SAMPLE_RATE)[None] for label in ("vocals", "bass")]
    estimates = noisy(references, rng, leak=0.1)
    whole = {"window": 2 * SAMPLE_RATE, "hop": 2 * SAMPLE_RATE, "bsseval_sources_version": True}
    found = score(references, estimates, testers=read_testers({"BSSEvalV4": whole})).scores
    sdr, sir, sar, _ = mir_eval.separation.bss_eval_sources(
        np.concatenate(references), np.concatenate(estimates), compute_permutation=False
    )
    for index, row in enumerate(found):
        for metric, theirs in (("SDR", sdr), ("SIR", sir), ("SAR", sar)):
            assert row[metric] == pytest.approx(theirs[index], abs=1e-3)


@pytest.mark.parametrize(
    ("metric", "tester", "perfect"),
    [
        ("STOI", {"STOI": {}}, 1.0),
        ("ESTOI", {"STOI": {"extended": True}}, 1.0),
        ("PESQ", {"PESQ": {}}, 4.549),  # P.862.1 ends there
    ],
)
def test_speech_metrics_decrease_with_noise(metric, tester, perfect):
    rng = np.random.default_rng(0)
    speech, noise = spoken(rng), rng.normal(size=(1, 16000))
    testers = read_testers(tester, SAMPLE_RATE)
    levels = [
        score([speech], [speech + gain * noise], speech + noise, testers).scores[0] for gain in (0, 0.001, 0.01, 0.1)
    ]
    values = [level[metric] for level in levels]
    assert values[0] == pytest.approx(perfect, abs=1e-3)
    assert values == sorted(values, reverse=True) and values[-1] < 0.8 * values[0]
    assert set(levels[0]) == {metric}


@pytest.mark.parametrize(("metric", "name"), [("STOI", "STOI"), ("PESQ", "PESQ")])
def test_speech_metrics_find_the_order_and_skip_silence(metric, name):
    rng = np.random.default_rng(0)
    one, other = spoken(rng), spoken(rng)
    testers = read_testers({name: {"compute_permutation": True}})
    found = score([one, other], [other + 0.1 * one, one + 0.1 * other], testers=testers)
    assert found.assignment == [1, 0]
    silent = score([np.zeros_like(one), one], [other, one], testers=read_testers([name]))
    assert np.isnan(silent.scores[0][metric]) and silent.scores[1][metric] > 0.9
    short = score([one[:, :2000], other[:, :2000]], [one[:, :2000]] * 2, testers=read_testers(["STOI"]))
    assert np.isnan(short.scores[0]["STOI"])


def test_every_metric_is_defined_and_documented():
    assert set(METRIC_DEFINITIONS) == {metric for metrics in METRICS_OF.values() for metric in metrics}
    for definition in METRIC_DEFINITIONS.values():
        assert all(vars(definition).values())
    documented = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()
    assert definitions_section() in documented, "generated by python -m separation.experiment.metric_definitions"


def test_testers_are_read_in_every_form_and_errors_name_the_key():
    args = {"compute_permutation": True, "best_permutation_key": "SI-SDR"}
    for form in ([{"BSSEvalScale": args}], {"BSSEvalScale": args}, [["BSSEvalScale", args]]):
        assert read_testers(form) == PERMUTED
    for form, expected in (
        ([{"BSSEval": {}}], "BSSEvalScale, BSSEvalV4"),
        ([{"BSSEvalScale": {"best_permutation_key": "SDR"}}], "best_permutation_key: expected one of SI-SDR"),
        ([{"BSSEvalScale": {"permute": True}}], "found 'permute'"),
        (["BSSEvalScale", "BSSEvalScale"], "duplicate tester"),
        ([{"PESQ": {}}], "PESQ: expected a dataset_config.sample_rate of 8000 or 16000, found 44100"),
    ):
        with pytest.raises(UserError, match=expected):
            read_testers(form, 44100)


@pytest.mark.parametrize(("sources", "estimates"), [(1, 1), (2, 2), (2, 3), (3, 3), (4, 4), (5, 5)])
def test_the_best_assignment_is_that_of_scipy_with_and_without_ties(sources, estimates):
    rng = np.random.default_rng(0)
    for shape in [(sources, estimates)] * 50:
        for value in (rng.standard_normal(shape), rng.integers(-1, 2, shape).astype(float), np.zeros(shape)):
            assert best_assignment(value) == linear_sum_assignment(value, maximize=True)[1].tolist()
