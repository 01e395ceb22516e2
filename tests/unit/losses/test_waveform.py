"""Losses on waveforms: values and gradients against a second implementation, in numpy and float64."""

import inspect
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from experiments import plan
from separation.errors import UserError
from separation.experiment.waveform_losses import READ_MIXTURE, WAVEFORM_LOSSES
from separation.files.yaml_reader import read_yaml
from separation.losses.combined import _WAVEFORM_CLASSES, CombinedLoss, loss_dictionary
from separation.losses.permutation import MOST_ENUMERATED
from separation.nussl_compat import nussl

ROOT = Path(__file__).resolve().parents[3]
RATE = 16000


def make_signals(seed=0, batch=2, channels=2, samples=1600, sources=2, silent=False):
    """Estimates and references (batch, channels, samples, sources) and the mixture, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, channels, samples, sources)
    references = 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    if silent:
        references[0, ..., 0] = 0
    estimates = references + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    noise = 0.05 * torch.randn(shape[:-1], generator=generator, dtype=torch.float64)
    return estimates, references, references.sum(dim=-1) + noise


def hann(length):
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def frames(signal, n_fft, hop, window):
    """Spectra of the frames of one channel, centred at multiples of the hop, (frames, frequencies)."""
    padded = np.pad(signal, n_fft // 2)
    window = np.pad(hann(window), ((n_fft - window) // 2, n_fft - window - (n_fft - window) // 2))
    starts = range(0, len(padded) - n_fft + 1, hop)
    return np.array([np.fft.rfft(window * padded[start : start + n_fft]) for start in starts])


def hearing_filter():
    """Zero-phase impulse response of logWMSE's filter at 44.1 kHz, from its filters run over an impulse."""
    rate, size = 44100, 1 << 15
    impulse = np.zeros(size)
    impulse[size // 2] = 1
    a, w = 10 ** (5 / 40), 2 * np.pi * 1500 / rate
    alpha, c = np.sin(w) / math.sqrt(2), np.cos(w)
    s = 2 * math.sqrt(a) * alpha
    shelf = (
        np.array([a * (a + 1 + (a - 1) * c + s), -2 * a * (a - 1 + (a + 1) * c), a * (a + 1 + (a - 1) * c - s)]),
        np.array([a + 1 - (a - 1) * c + s, 2 * (a - 1 - (a + 1) * c), a + 1 - (a - 1) * c - s]),
    )
    a, w = 10 ** (2.5 / 40), 2 * np.pi * 500 / rate
    alpha, c = np.sin(w) / (2 * 1.5 / math.sqrt(2)), np.cos(w)
    peak = np.array([1 + alpha * a, -2 * c, 1 - alpha * a]), np.array([1 + alpha / a, -2 * c, 1 - alpha / a])
    for taps in (shelf, peak):
        impulse = scipy.signal.lfilter(*taps, impulse)
    impulse = scipy.signal.sosfilt(scipy.signal.butter(2, 120, "highpass", fs=rate, output="sos"), impulse)
    impulse = scipy.signal.sosfiltfilt(scipy.signal.butter(1, 10_000, fs=rate, output="sos"), impulse)
    return np.fft.fftshift(np.fft.irfft(np.abs(np.fft.rfft(impulse))))


def snr(estimate, reference, mixture):
    floor = 1e-8 * reference.shape[-1]
    return -10 * math.log10((np.sum(reference**2) + floor) / (np.sum((reference - estimate) ** 2) + floor))


def thresholded_snr(estimate, reference, mixture, max_snr=30):
    level = np.sum(reference**2) or np.sum(mixture**2)
    level += 1e-8 * reference.shape[-1]
    return 10 * math.log10((np.sum((reference - estimate) ** 2) + 10 ** (-max_snr / 10) * level) / level)


def l1_snr(estimate, reference, mixture, n_fft=2048, hop_length=512):
    def level(error, signal):
        return 10 * math.log10((np.mean(np.abs(error)) + 1e-3) / (np.mean(np.abs(signal)) + 1e-3))

    total = level(estimate - reference, reference)
    if n_fft:
        spectra = [
            np.array([frames(channel, n_fft, hop_length, n_fft) for channel in signal])
            for signal in (estimate, reference)
        ]
        total += sum(level(part(spectra[0] - spectra[1]), part(spectra[1])) for part in (np.real, np.imag))
    return total


def log_wmse(estimate, reference, mixture):
    response = hearing_filter()

    def energies(signal):
        return [np.sum(scipy.signal.oaconvolve(channel, response) ** 2) for channel in signal]

    return np.mean(
        [4 * math.log(e / x + 1e-8) for e, x in zip(energies(estimate - reference), energies(mixture), strict=True)]
    )


def multi_resolution_stft(estimate, reference, mixture):
    values = []
    for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        e, s = (
            np.array([np.abs(frames(channel, n_fft, hop, window)).clip(1e-4) for channel in signal])
            for signal in (estimate, reference)
        )
        values.append(np.linalg.norm(e - s) / np.linalg.norm(s) + np.mean(np.abs(np.log(e) - np.log(s))))
    return np.mean(values)


def complex_spectral(estimate, reference, mixture):
    e, s = (np.array([frames(channel, 512, 128, 512) for channel in signal]) for signal in (estimate, reference))
    magnitudes = np.abs(np.abs(e).clip(1e-4) - np.abs(s).clip(1e-4))
    return np.mean(np.abs((e - s).real) + np.abs((e - s).imag) + magnitudes)


#: loss, arguments, second implementation, sample rate
CASES = {
    "SNR": ("SNRLoss", {}, snr),
    "thresholded SNR": ("ThresholdedSNRLoss", {"max_snr": 20}, lambda *a: thresholded_snr(*a, max_snr=20)),
    "L1": ("WaveformL1Loss", {}, lambda e, s, x: np.mean(np.abs(e - s))),
    "MSE": ("WaveformMSELoss", {}, lambda e, s, x: np.mean((e - s) ** 2)),
    "L1-SNR": ("L1SNRLoss", {}, l1_snr),
    "L1-SNR of samples": ("L1SNRLoss", {"n_fft": None}, lambda *a: l1_snr(*a, n_fft=None)),
    "logWMSE": ("LogWMSELoss", {"sample_rate": 44100}, log_wmse),
    "STFTs": ("MultiResolutionSTFTLoss", {}, multi_resolution_stft),
    "complex spectrum": ("ComplexSpectralLoss", {}, complex_spectral),
}


def loss_of(name, arguments=None):
    return CombinedLoss([[name, "audio", 1.0, arguments or {}]], RATE)


def value_of(loss, estimates, references, mixture):
    return loss({"audio": estimates}, {"source_audio": references, "mix_audio": mixture})


def by_hand(second, estimates, references, mixture):
    """The matrix of the second implementation for all pairs, (batch, estimates, references)."""
    e, s, x = (tensor.detach().numpy() for tensor in (estimates, references, mixture))
    pairs = np.empty((len(e), e.shape[-1], s.shape[-1]))
    for item, i, j in np.ndindex(pairs.shape):
        pairs[item, i, j] = second(e[item, ..., i], s[item, ..., j], x[item])
    return pairs


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("silent", [False, True])
def test_values_equal_a_second_implementation(case, silent):
    name, arguments, second = CASES[case]
    signals = make_signals(silent=silent)
    expected = np.mean([np.diag(matrix) for matrix in by_hand(second, *signals)])
    found = value_of(loss_of(name, arguments), *signals)
    # the reference of logWMSE filters in time, with a finite response
    np.testing.assert_allclose(found.item(), expected, rtol=1e-3 if case == "logWMSE" else 1e-9)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("silent", [False, True])
def test_gradients_equal_finite_differences_and_are_finite(case, silent):
    name, arguments, _ = CASES[case]
    loss = loss_of(name, arguments)
    estimates, references, mixture = make_signals(silent=silent)
    estimates.requires_grad_()
    (gradient,) = torch.autograd.grad(value_of(loss, estimates, references, mixture), estimates)
    direction = torch.randn(estimates.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    step = 1e-7
    up, down = (value_of(loss, estimates + sign * step * direction, references, mixture) for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (up - down) / (2 * step), rtol=1e-4, atol=1e-6)
    exact = references.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value_of(loss, exact, references, mixture), exact)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sources", [2, MOST_ENUMERATED + 1])
def test_the_best_order_is_that_of_each_item(case, sources):
    name, arguments, second = CASES[case]
    estimates, references, mixture = make_signals(sources=sources, channels=1, samples=900)
    order = torch.randperm(sources, generator=torch.Generator().manual_seed(1))
    estimates[1] = estimates[1][..., order]
    pairs = by_hand(second, estimates, references, mixture)
    expected = np.mean(
        [
            min(
                np.mean([matrix[i, j] for i, j in enumerate(order)]) for order in itertools.permutations(range(sources))
            )
            for matrix in pairs
        ]
    )
    loss = loss_of("PermutationInvariantLoss", {"loss_function": name, **arguments})
    found = value_of(loss, estimates.requires_grad_(), references, mixture)
    np.testing.assert_allclose(found.item(), expected, rtol=1e-3 if case == "logWMSE" else 1e-9)
    found.backward()
    assert estimates.grad.abs().sum() > 0


@pytest.mark.parametrize("sources", [2, MOST_ENUMERATED + 1])
def test_permutation_invariant_si_sdr_is_nussls_value_for_any_number_of_sources(sources):
    estimates, references, mixture = make_signals(sources=sources)
    theirs = nussl.ml.train.loss.PermutationInvariantLoss(nussl.ml.train.loss.SISDRLoss())
    ours = loss_of("PermutationInvariantLoss", {"loss_function": "SISDRLoss"})
    shuffled = estimates.flip(-1)
    torch.testing.assert_close(value_of(ours, shuffled, references, mixture), theirs(shuffled, references))


def test_mixit_adds_each_estimate_to_the_best_mixture():
    """Against all assignments by hand, and against the truth."""
    sources, _, _ = make_signals(sources=4, channels=1)
    mixtures = torch.stack([sources[..., [0, 3]].sum(-1), sources[..., [1, 2]].sum(-1)], dim=-1)
    mixture = mixtures.sum(dim=-1)
    noisy = sources + 0.05 * torch.randn(sources.shape, generator=torch.Generator().manual_seed(3)).double()
    expected = []
    for item in range(len(noisy)):
        values = []
        for assignment in itertools.product(range(2), repeat=4):
            e, s, x = noisy[item].numpy(), mixtures[item].numpy(), mixture[item].numpy()
            sums = [e[..., [i for i in range(4) if assignment[i] == j]].sum(axis=-1) for j in range(2)]
            values.append(np.mean([thresholded_snr(sums[j], s[..., j], x) for j in range(2)]))
        expected.append(min(values))
    loss = loss_of("MixITLoss")
    np.testing.assert_allclose(value_of(loss, noisy, mixtures, mixture).item(), np.mean(expected), rtol=1e-9)
    assert value_of(loss, sources, mixtures, mixture).item() == pytest.approx(-30, abs=0.01)


def test_a_threshold_keeps_good_estimates_from_ruling_the_loss():
    _, references, mixture = make_signals()
    assert value_of(loss_of("SNRLoss"), references, references, mixture) < -60
    assert value_of(loss_of("ThresholdedSNRLoss"), references, references, mixture).item() == pytest.approx(
        -30, abs=0.01
    )


def test_the_table_of_planning_matches_the_losses():
    assert set(_WAVEFORM_CLASSES) == set(WAVEFORM_LOSSES)
    for name, known in WAVEFORM_LOSSES.items():
        parameters = inspect.signature(_WAVEFORM_CLASSES[name]).parameters.values()
        # a loss without arguments has torch's signature
        named = tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
        assert named == known, name
        assert ("mix_audio" in _WAVEFORM_CLASSES[name].DEFAULT_KEYS) == (name in READ_MIXTURE), name


def test_checkpoints_name_the_loss_and_the_one_inside():
    named = loss_dictionary([["PermutationInvariantLoss", "audio", 2.0, {"loss_function": "SNRLoss"}]])
    (entry,) = named.values()
    assert entry["args"] == ["SNRLoss"] and entry["weight"] == 2.0
    assert entry["keys"] == {"audio": "estimates", "source_audio": "references"}


def plan_with(folder, *entry, **dataset_config):
    content = read_yaml(ROOT / "config/experiments/music_tasnet.yml").value
    content.pop("sweep")
    content["train_config"]["loss_function"] = [list(entry)]
    content["dataset_config"] |= dataset_config
    return plan(content, folder)


def test_experiments_name_the_losses_in_short_and_in_full(tmp_path):
    short = plan_with(tmp_path, "pit:LogWMSELoss", "audio", 1.0, {"sample_rate": 8000})
    full = plan_with(
        tmp_path, "PermutationInvariantLoss", "audio", 1.0, {"loss_function": "LogWMSELoss", "sample_rate": 8000}
    )
    assert [row.point for row in short.rows] == [row.point for row in full.rows]
    assert short.rows[0].point.startswith("time-")
    assert plan_with(tmp_path, "mixit:SNRLoss", "audio").rows[0].point.startswith("time-")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["SNRLos", "audio"], "unknown loss 'SNRLos'; did you mean 'SNRLoss'?"),
        (["L1SNRLoss", "audio", 1.0, {"nfft": 512}], "unknown argument 'nfft'; did you mean 'n_fft'?"),
        (["SNRLoss", "audio", 1.0, {"eps": 1}], "unknown argument 'eps'; SNRLoss takes none"),
        (["mixit:DeepClusteringLoss", "audio"], "MixITLoss needs a loss on waveforms, found 'DeepClusteringLoss'"),
        (["SNRLoss", "estimates"], "the model has no output 'estimates'"),
    ],
)
def test_a_mistake_in_the_list_of_losses_is_one_line_before_anything_runs(entry, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        plan_with(tmp_path, *entry)
    assert caught.value.key == "train_config.loss_function[0]"


def test_a_loss_that_reads_the_mixture_says_so_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match=r"needs 'source_audio' in dataset_config\.data_keys_for_training"):
        plan_with(tmp_path, "ThresholdedSNRLoss", "audio", data_keys_for_training=["mix_audio"])


@pytest.mark.parametrize("name", ["SNRLoss", "PermutationInvariantLoss"])
@pytest.mark.parametrize(
    ("estimates", "message"),
    [
        (torch.zeros(2, 1, 100, 3), "expected as many estimates as sources, 2, found 3"),
        (torch.zeros(2, 1, 90, 2), "expected estimates of 2 batch, 1 channels, 100 samples, found .*90 samples"),
    ],
)
def test_estimates_that_do_not_fit_are_one_line(name, estimates, message):
    arguments = {"loss_function": "SNRLoss"} if name == "PermutationInvariantLoss" else {}
    references = torch.zeros(2, 1, 100, 2)
    with pytest.raises(UserError, match=message):
        value_of(loss_of(name, arguments), estimates, references, references.sum(-1))


def test_too_many_estimates_for_mixit_are_one_line():
    references = torch.zeros(1, 1, 100, 2)
    with pytest.raises(UserError, match=r"at most 4096 ways to assign the estimates, found 2\^13"):
        value_of(loss_of("MixITLoss"), torch.zeros(1, 1, 100, 13), references, references.sum(-1))
