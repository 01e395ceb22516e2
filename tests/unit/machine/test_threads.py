"""Parallel processes and threads use one thread each."""

import os

import torch

from separation.data.items import Items
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore
from separation.machine.parallel import run_in_order
from separation.training.batches import BatchLoader, plan_epoch
from training_examples import dataset_options, write_split


def threads_here(_):
    """This process's id, and the numbers of threads of its numeric libraries."""
    import torch
    from threadpoolctl import threadpool_info

    return os.getpid(), torch.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info())


def test_parallel_processes_use_one_thread_each(monkeypatch):
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(variable, "4")
    found = run_in_order(threads_here, [(number,) for number in range(4)], workers=2, items="calls")
    assert all(process != os.getpid() for process, _, _ in found)
    assert {(torch_threads, others) for _, torch_threads, others in found} == {(1, 1)}


def test_reading_ahead_does_not_change_the_threads_of_the_training(tmp_path):
    options = dataset_options(cache_kind="audio")
    items = Items(write_split(tmp_path / "train", count=4), options)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        names = stored_arrays("audio", options.data_keys_for_training)
        store = FeatureStore.from_items(encoded_items(items, options, names, workers=2), options)
        loader = BatchLoader(store, options, batch_size=1, num_workers=2)
        plan = plan_epoch(
            store.frames,
            length=20,
            seed=0,
            epoch=0,
            sample_strategy="random",
            excerpt_selection_strategy="first",
        )
        for _ in loader.load(plan):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
