"""Parallel processes and threads use one thread each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from separation.data.items import Items
from separation.features.encoding import encoded_items, stored_arrays
from separation.features.store import FeatureStore
from separation.training.batches import BatchLoader, plan_epoch
from training_examples import dataset_options, write_split

SCRIPTS = Path(__file__).resolve().parents[3] / "workflow" / "scripts"
PROGRAM = """
import json, os
from separation.machine.parallel import run_in_order

def threads_here(_):
    # sent by value: the processes import nothing else
    import torch
    from threadpoolctl import threadpool_info
    return os.getpid(), torch.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info())

found = run_in_order(threads_here, [(number,) for number in range(4)], workers=2, items="calls")
print(json.dumps([os.getpid(), found]))
"""


def test_parallel_processes_use_one_thread_each():
    # in a process of its own, as the processes of earlier tests started with other variables
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "4")
    environment = {**os.environ, **variables, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parent, found = json.loads(done.stdout)
    assert all(process != parent for process, _, _ in found)
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
