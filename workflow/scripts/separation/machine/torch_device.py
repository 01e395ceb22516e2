"""Torch devices: choice, description and deterministic arithmetic."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from separation.errors import UserError
from separation.machine.threads import limited_torch_threads


def find_device(device: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:<n>; UserError if it is unavailable."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"expected auto, cpu or cuda, found {device!r}", key="train_config.device") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"expected a GPU that torch can use for {device!r}, found none", key="train_config.device")
    return found


def describe_device(device: torch.device, count: int = 1) -> str:
    """A device as messages show it: cpu, 2 x cpu, cuda:0 (NVIDIA H200)."""
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    return name if count == 1 else f"{count} x {name}"


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads while the block runs.

    Denormal numbers count as 0: at a high learning rate a network whose sigmoids are saturated is full of them, and a
    step takes half as long again on a CPU.
    """
    before = torch.get_deterministic_debug_mode()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with limited_torch_threads(threads):
        torch.set_flush_denormal(True)
        # some GPU operations have no deterministic form: they run, and a warning in the log names them
        # this function, because use_deterministic_algorithms imports the compiler, which takes longer than torch
        torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
        try:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                yield
        finally:
            torch.set_flush_denormal(False)
            torch.set_deterministic_debug_mode(before)
