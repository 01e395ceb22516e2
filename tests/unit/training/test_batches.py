"""Excerpts of a training run, which depend only on (seed, epoch, item)."""

import itertools

import numpy as np
import pytest
import torch

from separation.data.items import Items
from separation.errors import UserError
from separation.experiment.options import RemixOptions
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore
from separation.training.batches import BatchLoader, choose_subset, plan_epoch
from separation.training.ddp import ProcessGroup
from training_examples import dataset_options, write_split

KINDS = ["features", "audio"]
FRAMES = np.array([100, 90, 120, 30, 100, 41])


def make_plan(**changes):
    options = {"length": 40, "seed": 0, "epoch": 0, "sample_strategy": "random", "excerpt_selection_strategy": "random"}
    return plan_epoch(FRAMES, **(options | changes))


def make_store(tmp_path, options):
    items = Items(write_split(tmp_path / "train", count=5), options)
    names = stored_arrays(options.cache_kind, options.data_keys_for_training)
    return FeatureStore.from_items(encoded_items(items, options, names), options)


def by_item(plan):
    return dict(zip(plan.items.tolist(), plan.starts.tolist(), strict=True))


def test_seed_and_epoch_determine_the_plan():
    assert by_item(make_plan()) == by_item(make_plan())
    assert make_plan().items.tolist() == make_plan().items.tolist()
    orders = {tuple(make_plan(seed=seed, epoch=epoch).items) for seed in range(3) for epoch in range(3)}
    assert len(orders) > 6
    assert by_item(make_plan(epoch=1)) != by_item(make_plan())


def test_an_epoch_has_one_excerpt_inside_every_item():
    for epoch in range(50):
        plan = make_plan(epoch=epoch)
        assert sorted(plan.items.tolist()) == list(range(len(FRAMES)))
        assert (plan.starts >= 0).all()
        assert (plan.starts <= np.maximum(FRAMES[plan.items] - 40, 0)).all()


def test_random_excerpts_reach_the_first_and_the_last_frame():
    starts = {by_item(make_plan(epoch=epoch))[5] for epoch in range(50)}
    assert starts == {0, 1}


def test_the_order_of_items_does_not_change_their_excerpts():
    assert by_item(make_plan(sample_strategy="random")) == by_item(make_plan(sample_strategy="sequential"))
    assert make_plan(sample_strategy="sequential").items.tolist() == list(range(len(FRAMES)))


def test_fixed_excerpts_are_the_same_in_every_epoch():
    for strategy, expected in (("first", [0, 0, 0, 0, 0, 0]), ("middle", [30, 25, 40, 0, 30, 0])):
        for epoch in range(3):
            plan = make_plan(sample_strategy="sequential", excerpt_selection_strategy=strategy, epoch=epoch)
            assert plan.starts.tolist() == expected


def test_a_larger_fraction_of_the_dataset_contains_the_smaller():
    subsets = [set(choose_subset(100, fraction, seed=3)) for fraction in (0.001, 0.1, 0.5, 1.0)]
    assert [len(subset) for subset in subsets] == [1, 10, 50, 100]
    assert all(small <= large for small, large in itertools.pairwise(subsets))
    assert set(choose_subset(100, 0.1, seed=4)) != subsets[1]
    with pytest.raises(UserError, match="fraction_of_dataset"):
        choose_subset(100, 0, seed=0)


def test_only_the_subset_is_used():
    plan = make_plan(subset=np.array([1, 4]))
    assert sorted(plan.items.tolist()) == [1, 4]
    assert by_item(plan).items() <= by_item(make_plan()).items()


def remixed(**changes):
    remix = {"probability": 0.5, "gain": (-6, 6)} | changes.pop("remix", {})
    return make_plan(remix=RemixOptions(**remix), num_sources=2, **changes)


def test_a_remix_draws_sources_of_the_subset_with_gains_within_the_limits():
    chosen, items, gains = [], set(), []
    for epoch in range(200):
        plan = remixed(epoch=epoch, subset=np.array([0, 2, 3, 5]))
        assert by_item(plan) == by_item(make_plan(epoch=epoch, subset=np.array([0, 2, 3, 5])))
        chosen += plan.remix.chosen.tolist()
        items |= set(plan.remix.items.ravel().tolist())
        gains += plan.remix.gains.ravel().tolist()
        assert plan.remix.items.shape == plan.remix.starts.shape == plan.remix.gains.shape == (4, 2)
        assert (plan.remix.starts >= 0).all()
        assert (plan.remix.starts <= np.maximum(FRAMES[plan.remix.items] - 40, 0)).all()
    assert items == {0, 2, 3, 5} and 0.4 < np.mean(chosen) < 0.6
    decibels = 20 * np.log10(gains)
    assert -6 <= decibels.min() < -5.5 and 5.5 < decibels.max() <= 6 and abs(decibels.mean()) < 0.5
    assert remixed(remix={"probability": 1}).remix.chosen.all()


def test_seed_epoch_and_item_determine_a_remix():
    def by_excerpt(plan):
        parts = (plan.remix.chosen, plan.remix.items, plan.remix.starts, plan.remix.gains)
        return dict(zip(plan.items.tolist(), zip(*(part.tolist() for part in parts), strict=True), strict=True))

    assert by_excerpt(remixed()) == by_excerpt(remixed(sample_strategy="sequential"))
    assert by_excerpt(remixed(epoch=1)) != by_excerpt(remixed()) != by_excerpt(remixed(seed=1))
    plan = remixed()
    together = {}
    for batch in plan.batches(4, first_batch=0):
        together |= by_excerpt(batch)
    assert together == by_excerpt(plan)
    shares = [by_excerpt(ProcessGroup(rank, 2).share(plan, 2)) for rank in range(2)]
    assert shares[0] | shares[1] == by_excerpt(plan)
    assert make_plan().remix is None


@pytest.mark.parametrize("key", ["sample_strategy", "excerpt_selection_strategy"])
def test_an_unknown_strategy_is_an_error_that_names_the_key(key):
    with pytest.raises(UserError, match=key):
        make_plan(**{key: "balanced"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path, num_workers, kind):
    keys = ["mix_magnitude", "source_magnitudes", "ideal_binary_mask", "weights", "mix_audio", "source_audio"]
    options = dataset_options(data_keys_for_training=keys, cache_kind=kind)
    store = make_store(tmp_path, options)
    plan = plan_epoch(
        store.frames, length=20, seed=0, epoch=0, sample_strategy="random", excerpt_selection_strategy="random"
    )
    expected = list(BatchLoader(store, options, batch_size=2).load(plan))
    found = list(BatchLoader(store, options, batch_size=2, num_workers=num_workers).load(plan))
    assert [len(batch["mix_magnitude"]) for batch in found] == [2, 2, 1]
    for ours, theirs in zip(found, expected, strict=True):
        assert list(ours) == list(theirs) == keys
        for key in ours:
            assert torch.equal(ours[key], theirs[key])
    assert expected[0]["source_magnitudes"].shape == (2, 20, 33, 1, 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_at_any_batch(tmp_path, num_workers):
    options = dataset_options()
    store = make_store(tmp_path, options)
    plan = plan_epoch(
        store.frames, length=20, seed=0, epoch=0, sample_strategy="random", excerpt_selection_strategy="random"
    )
    loader = BatchLoader(store, options, batch_size=2, num_workers=num_workers)
    whole = list(loader.load(plan))
    for first_batch in range(len(whole) + 1):
        rest = list(loader.load(plan, first_batch))
        assert len(rest) == len(whole) - first_batch
        for ours, theirs in zip(rest, whole[first_batch:], strict=True):
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
