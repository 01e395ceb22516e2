"""torch devices: which one a job uses, its name, and deterministic arithmetic on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from separation.errors import UserError


def find_device(device: str) -> torch.device:
    """The torch device for auto, cpu, cuda or cuda:<n>; UserError where it is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"expected auto, cpu or cuda, found {device!r}", key="train_config.device") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"expected a GPU that torch can use for {device!r}, found none", key="train_config.device")
    return place


def describe_device(device: torch.device, count: int = 1) -> str:
    """A device for people: cpu, 2 x cpu, cuda:0 (NVIDIA H200)."""
    name = f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
    return name if count == 1 else f"{count} x {name}"


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of threads; the process gets its own settings back.

    Numbers too small for a normal float count as 0: at a high learning rate a network whose sigmoids are saturated is
    full of them, and a processor takes half as long again for a step.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # on a GPU some operations have no deterministic form; they are told in the log and used
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
