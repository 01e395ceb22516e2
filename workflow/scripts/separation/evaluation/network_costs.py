"""Costs of separating with a network: parameters, multiply-adds, real-time factor and peak memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from separation.data.items import Item
from separation.evaluation.separator import Separator

logger = logging.getLogger(__name__)

ITEMS = 3  # items that are timed, fewer if they take longer than SECONDS
SECONDS = 10.0


def network_costs(separator: Separator, items: Sequence[Item], device: str) -> dict[str, Any]:
    """Measures the costs of separating items one by one, on a CPU with the threads that this process may use.

    Args:
        separator: Separator with the trained network.
        items: Items to separate, the first of them once more to warm up.
        device: cpu or cuda.

    Returns:
        `parameters` of the network; `multiply_adds_per_second` of audio, see `multiply_adds`; `real_time_factor`,
        seconds of computing per second of audio, from the mixture to the estimates; `peak_memory_mb`, MB (10^6 bytes):
        on a GPU all memory allocated, on a CPU what the process needs beyond what it had with the network loaded;
        `device`; `threads`. None where it is unknown.
    """
    network, first = separator.network, items[0]
    began = time.perf_counter()
    separator(first)
    seconds, audio = time.perf_counter() - began, _duration(first)
    if seconds < SECONDS:
        seconds = audio = 0.0
        for item in items[:ITEMS]:
            began = time.perf_counter()
            separator(item)
            seconds, audio = seconds + time.perf_counter() - began, audio + _duration(item)
            if seconds > SECONDS:
                break
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()) if network is not None else None,
        "multiply_adds_per_second": _multiply_adds(separator, first) if network is not None else None,
        "real_time_factor": seconds / audio,
        "peak_memory_mb": _peak_memory(separator, first, device),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def multiply_adds(network: Any, *arguments: Any) -> int:
    """The multiply-adds of calling a network: matrix products, convolutions, attention and recurrent layers.

    FFTs, normalization and activations are not counted, as is usual.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_recurrent_layers())
    with torch.no_grad(), counter:
        network(*arguments)
    # of every multiply-add it counts two operations
    return counter.get_total_flops() // 2


def _multiply_adds(separator: Separator, item: Item) -> float | None:
    """Multiply-adds of the network per second of an item."""
    try:
        run = (lambda: separator.outputs([item])) if separator.batches else (lambda: separator(item))
        return multiply_adds(run) / _duration(item)
    except Exception as error:  # a module that the counter cannot trace: scores matter more than this number
        logger.warning("the multiply-adds of the network are unknown: %s: %s", type(error).__name__, error)
        return None


def _recurrent_layers() -> dict[Any, Any]:
    """Operations by layer of the recurrent networks of cuDNN and oneDNN, which torch does not count.

    Each step multiplies the input and the hidden state by all weight matrices once.
    """

    def of_mkldnn(input_shape: Any, weight: Any, hidden_weight: Any, *rest: Any, **others: Any) -> int:
        return 2 * math.prod(input_shape[:2]) * (math.prod(weight) + math.prod(hidden_weight))

    def of_cudnn(input_shape: Any, weights: Any, *rest: Any, **others: Any) -> int:
        return 2 * math.prod(input_shape[:2]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)

    return {torch.ops.aten.mkldnn_rnn_layer: of_mkldnn, torch.ops.aten._cudnn_rnn: of_cudnn}


def _duration(item: Item) -> float:
    return item.mixture.signal_length / item.mixture.sample_rate


def _peak_memory(separator: Separator, item: Item, device: str) -> float | None:
    """The peak memory of separating an item, MB; None if the system does not tell it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        separator(item)
        return torch.cuda.max_memory_allocated() / 1e6
    try:
        # resets the peak, VmHWM (Linux, proc(5))
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        separator(item)
        return max(0.0, _status("VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _status(key: str) -> float:
    """A field of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1]) * 1024 / 1e6
