"""Losses of an experiment equal nussl's."""

import pytest
import torch

from separation.errors import UserError
from separation.losses.clustering import DeepClusteringLoss
from separation.losses.combined import CombinedLoss, loss_dictionary
from separation.nussl_compat import nussl


def make_batch(seed=0, batch=3, frames=7, frequencies=5, size=4, sources=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames, frequencies, 1)
    assignments = torch.nn.functional.one_hot(torch.randint(sources, shape, generator=generator), sources).float()
    assignments[:, 0] = 0  # padding, and bins that belong to no source
    weights = torch.rand(shape, generator=generator)
    weights[:, 1] = 0
    embedding = torch.randn(*shape, size, generator=generator)
    magnitudes = torch.rand(*shape, sources, generator=generator)
    return {
        "embedding": embedding,
        "estimates": torch.rand(*shape, sources, generator=generator),
        "ideal_binary_mask": assignments,
        "weights": weights,
        "source_magnitudes": magnitudes,
    }


@pytest.mark.parametrize("sources", [2, 3])
@pytest.mark.parametrize("unit_norm", [True, False])
def test_the_closed_form_equals_nussls_deep_clustering_loss_and_gradient(unit_norm, sources):
    batch = make_batch(sources=sources)
    results = []
    for loss_class in (DeepClusteringLoss, nussl.ml.train.loss.DeepClusteringLoss):
        leaf = batch["embedding"].double().requires_grad_()
        embedding = torch.nn.functional.normalize(leaf, dim=-1) if unit_norm else leaf
        loss = loss_class()(embedding, batch["ideal_binary_mask"].double(), batch["weights"].double())
        (3 * loss).backward()
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-14)
    assert results[0][1].abs().max() > 1e-4


def test_the_closed_form_gradient_equals_finite_differences():
    batch = {key: value.double() for key, value in make_batch(batch=2, frames=3, frequencies=2, size=3).items()}
    torch.autograd.gradcheck(
        lambda embedding: DeepClusteringLoss()(embedding, batch["ideal_binary_mask"], batch["weights"]),
        batch["embedding"].requires_grad_(),
    )


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("dpcl", "embedding", lambda loss: loss.DeepClusteringLoss()),
        ("DeepClusteringLoss", "embedding", lambda loss: loss.DeepClusteringLoss()),
        ("whitened_kmeans", "embedding", lambda loss: loss.WhitenedKMeansLoss()),
        ("l1", "estimates", lambda loss: loss.L1Loss()),
        ("MSELoss", "estimates", lambda loss: loss.MSELoss()),
        ("pit:mse", "estimates", lambda loss: loss.PermutationInvariantLoss(loss.MSELoss())),
        ("PermutationInvariantLoss", "estimates", lambda loss: loss.PermutationInvariantLoss(loss.L1Loss())),
        ("cit:l1", "estimates", lambda loss: loss.CombinationInvariantLoss(loss.L1Loss())),
    ],
)
def test_a_short_name_selects_nussls_class(name, output, expected):
    batch = make_batch()
    theirs = expected(nussl.ml.train.loss)
    arguments = {argument: batch[key] for key, argument in type(theirs).DEFAULT_KEYS.items()}
    ours = CombinedLoss([[name, output, 1.0]])
    targets = {key: batch[key] for key in ("ideal_binary_mask", "weights", "source_magnitudes")}
    torch.testing.assert_close(ours({output: batch[output]}, targets), theirs(**arguments))


def test_losses_are_summed_with_their_weights():
    batch = make_batch()
    output = {key: batch.pop(key) for key in ("embedding", "estimates")}
    single = [
        CombinedLoss([[name, key, 1.0]])(output, batch) for name, key in (("dpcl", "embedding"), ("l1", "estimates"))
    ]
    both = CombinedLoss([["dpcl", "embedding", 0.2], ["l1", "estimates", 0.8]])(output, batch)
    torch.testing.assert_close(both, 0.2 * single[0] + 0.8 * single[1])


def test_weight_and_arguments_are_optional():
    batch = make_batch()
    output = {"estimates": batch.pop("estimates")}
    full = CombinedLoss([["PermutationInvariantLoss", "estimates", 1.0, {"loss_function": "MSELoss"}]])(output, batch)
    assert CombinedLoss([["pit:mse", "estimates"]])(output, batch) == full
    assert CombinedLoss([["PermutationInvariantLoss", "estimates"]])(output, batch) != full


def test_an_output_may_have_any_name():
    batch = make_batch()
    named = CombinedLoss([["dpcl", "deep_embedding", 1.0]])
    same = CombinedLoss([["dpcl", "embedding", 1.0]])
    embedding = batch.pop("embedding")
    assert named({"deep_embedding": embedding}, batch) == same({"embedding": embedding}, batch)


def test_permutation_invariance_uses_the_better_order():
    batch = make_batch()
    swapped = {"estimates": batch["source_magnitudes"].flip(-1)}
    assert CombinedLoss([["pit:l1", "estimates", 1.0]])(swapped, batch) == 0
    assert CombinedLoss([["l1", "estimates", 1.0]])(swapped, batch) > 0.1


@pytest.mark.parametrize("name", ["dpc", "pit:dpcl", "mit:l1", "nn"])
def test_an_unknown_loss_is_an_error_that_lists_the_known_ones(name):
    with pytest.raises(UserError, match=r"train_config.loss_function.*unknown loss"):
        CombinedLoss([[name, "embedding", 1.0]])


def test_a_loss_without_its_data_is_an_error():
    loss = CombinedLoss([["dpcl", "embedding", 1.0]])
    loss.check(["embedding"], ["mix_magnitude", "ideal_binary_mask", "weights"])
    with pytest.raises(UserError, match="needs weights"):
        loss.check(["embedding"], ["mix_magnitude", "ideal_binary_mask"])
    with pytest.raises(UserError, match="needs embedding"):
        loss.check(["mask"], ["mix_magnitude", "ideal_binary_mask", "weights"])


def test_nussls_closure_accepts_the_loss_dictionary_of_checkpoints():
    losses = [["dpcl", "embedding", 0.5], ["pit:mse", "estimates", 2]]
    closure = nussl.ml.train.closures.Closure(loss_dictionary(losses))
    batch = make_batch()
    output = {key: batch.pop(key) for key in ("embedding", "estimates")}
    theirs = closure.compute_loss(dict(output), batch)["loss"]
    torch.testing.assert_close(CombinedLoss(losses)(output, batch), theirs)
