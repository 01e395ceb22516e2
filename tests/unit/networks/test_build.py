"""Networks are nussl's SeparationModel with seeded weights, and fit their spectrograms."""

import copy

import pytest
import torch

from separation.errors import UserError
from separation.experiment.options import NetworkOptions
from separation.losses.combined import CombinedLoss
from separation.networks.build import build_model, without_unit_norm
from training_examples import experiment

MODEL = experiment()["model_config"]


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_seed_determines_the_initial_weights():
    models = [build_model(NetworkOptions.read(MODEL), seed=seed, num_frequencies=33) for seed in (0, 0, 1)]
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_building_changes_neither_the_options_nor_the_global_random_state():
    config, state = copy.deepcopy(MODEL), torch.random.get_rng_state()
    build_model(NetworkOptions.read(config), seed=0, num_frequencies=33)
    assert config == MODEL
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_model_that_does_not_fit_the_spectrograms_is_an_error_with_both_sizes():
    with pytest.raises(UserError, match=r"model_config: the model does not fit spectrograms of 129 frequencies"):
        build_model(NetworkOptions.read(MODEL), seed=0, num_frequencies=129)


def test_an_unknown_module_is_an_error_that_names_it():
    config = copy.deepcopy(MODEL)
    config["modules"]["recurrent_stack"]["class"] = "RecurentStack"
    with pytest.raises(UserError, match=r"model_config.modules.recurrent_stack.class: .*'RecurentStack'"):
        build_model(NetworkOptions.read(config), seed=0, num_frequencies=33)


def test_wrong_arguments_of_a_module_are_an_error():
    config = copy.deepcopy(MODEL)
    config["modules"]["recurrent_stack"]["args"]["hidden"] = 3
    with pytest.raises(UserError, match=r"model_config.modules: .*hidden"):
        build_model(NetworkOptions.read(config), seed=0, num_frequencies=33)


def test_skipping_the_unit_norm_changes_neither_loss_nor_gradient():
    loss = CombinedLoss([["dpcl", "embedding", 1.0]])
    assert loss.scale_free_outputs() == {"embedding"}
    generator = torch.Generator().manual_seed(0)
    mask = torch.nn.functional.one_hot(torch.randint(2, (2, 20, 33, 1), generator=generator), 2).double()
    batch = {
        "mix_magnitude": torch.rand(2, 20, 33, 1, generator=generator).double(),
        "ideal_binary_mask": mask,
        "weights": torch.rand(2, 20, 33, 1, generator=generator).double(),
    }
    results = []
    for outputs in (set(), {"embedding"}):
        model = build_model(NetworkOptions.read(MODEL), seed=0, num_frequencies=33).double()
        with without_unit_norm(model, outputs):
            output = model(batch)
        results.append(output["embedding"].norm(dim=-1).detach())
        loss(output, batch).backward()
        results.append([parameter.grad for parameter in model.parameters()])
        assert model.layers["embedding"].activation == ["sigmoid", "unit_norm"]
        assert model.config["modules"]["embedding"]["args"]["activation"] == ["sigmoid", "unit_norm"]
    with_norm, gradients, without_norm, same_gradients = results
    assert torch.allclose(with_norm, torch.ones_like(with_norm))
    assert not torch.allclose(without_norm, torch.ones_like(without_norm))
    torch.testing.assert_close(gradients, same_gradients, rtol=1e-8, atol=1e-12)


def test_the_unit_norm_is_kept_if_another_loss_or_module_reads_the_embedding():
    assert CombinedLoss([["dpcl", "embedding", 1.0], ["l1", "embedding", 1.0]]).scale_free_outputs() == set()
    assert CombinedLoss([["pit:l1", "estimates", 1.0]]).scale_free_outputs() == set()
    config = copy.deepcopy(MODEL)
    config["modules"]["alias"] = {"class": "Alias"}
    config["connections"].append(["alias", ["embedding"]])
    model = build_model(NetworkOptions.read(config), seed=0, num_frequencies=33)
    with without_unit_norm(model, {"embedding"}):
        assert model.layers["embedding"].activation == ["sigmoid", "unit_norm"]
