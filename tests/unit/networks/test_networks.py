"""Networks of this project: size and arithmetic of the papers."""

import pytest
import torch

from separation.networks.conv_tasnet import ConvTasNet
from separation.networks.open_unmix import OpenUnmix
from separation.networks.sepformer import SepFormer
from separation.networks.tf_gridnet import TFGridNet

SMALL = {
    ConvTasNet: {
        "num_filters": 32,
        "bottleneck_size": 16,
        "hidden_size": 24,
        "skip_size": 12,
        "num_blocks": 3,
        "num_repeats": 2,
    },
    OpenUnmix: {"n_fft": 64, "hop_length": 16, "num_frequencies_read": 20, "hidden_size": 12, "num_layers": 2},
    SepFormer: {
        "num_filters": 16,
        "chunk_size": 20,
        "num_repeats": 2,
        "num_layers": 1,
        "num_heads": 2,
        "feedforward_size": 16,
    },
    TFGridNet: {"n_fft": 32, "hop_length": 8, "embedding_size": 8, "num_blocks": 1, "hidden_size": 6, "num_heads": 2},
}


@pytest.mark.parametrize(
    ("network", "millions"), [(ConvTasNet, 5.1), (OpenUnmix, 4 * 8.9), (SepFormer, 25.7), (TFGridNet, 14.5)]
)
def test_the_defaults_have_as_many_parameters_as_in_the_paper(network, millions):
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in network().parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("network", SMALL)
@pytest.mark.parametrize(("sources", "channels", "samples"), [(2, 1, 401), (3, 2, 400), (1, 1, 50)])
def test_estimates_are_as_long_as_the_mixture(network, sources, channels, samples):
    torch.manual_seed(0)
    model = network(num_sources=sources, num_channels=channels, **SMALL[network])
    mixture = torch.randn(2, channels, samples)
    estimates = model(mixture)
    assert estimates.shape == (2, sources, channels, samples)
    estimates.square().mean().backward()
    for parameter in model.parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0
    # items of a batch do not see each other
    model.eval()
    torch.testing.assert_close(model(mixture[:1]), model(mixture)[:1], rtol=1e-4, atol=1e-6)


def test_open_unmix_masks_the_magnitude_of_the_mixture():
    model = OpenUnmix(num_channels=1, **SMALL[OpenUnmix]).eval()
    for masks in model.sources:
        # a mask of 1, whatever is read
        torch.nn.init.zeros_(masks.output.weight)
    mixture = torch.randn(1, 1, 500)
    torch.testing.assert_close(model(mixture), mixture[:, None].expand(1, 4, 1, 500), rtol=1e-4, atol=1e-5)


def test_sepformer_joins_what_it_cut_into_chunks():
    model = SepFormer(**SMALL[SepFormer])
    features = torch.randn(2, 16, 57)
    torch.testing.assert_close(model._joined(model._chunks(features), 57), 2 * features)


def test_tf_gridnet_scales_its_estimates_with_the_mixture():
    model = TFGridNet(**SMALL[TFGridNet]).eval()
    mixture = torch.randn(1, 1, 500)
    torch.testing.assert_close(model(10 * mixture), 10 * model(mixture), rtol=1e-4, atol=1e-4)


def test_conv_tasnet_equals_asteroids_on_the_same_weights():
    asteroid = pytest.importorskip("asteroid.models", reason="envs/extra.sh networks installs asteroid")
    torch.manual_seed(0)
    theirs = asteroid.ConvTasNet(
        n_src=2, n_filters=32, kernel_size=16, stride=8, n_blocks=3, n_repeats=2, bn_chan=16, hid_chan=24,
        skip_chan=12, norm_type="gLN", mask_act="sigmoid", encoder_activation="relu",
    )  # fmt: skip
    ours = ConvTasNet(**SMALL[ConvTasNet])
    with torch.no_grad():
        for parameter, same in zip(ours.parameters(), theirs.parameters(), strict=True):
            parameter.copy_(same.reshape(parameter.shape))
    mixture = torch.randn(3, 1, 803)
    # asteroid does not pad its input: a stride before, and enough after
    padded = torch.nn.functional.pad(mixture, (8, 8 + -803 % 8))
    torch.testing.assert_close(ours(mixture)[:, :, 0], theirs(padded)[..., 8 : 8 + 803], rtol=1e-4, atol=1e-6)
