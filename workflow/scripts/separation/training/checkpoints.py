"""What a training keeps on disk: the state to go on from, and networks that nussl loads."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from separation.errors import UserError
from separation.features.spectra import OUTPUT_TYPES
from separation.files import atomic
from separation.losses.combined import loss_dictionary
from separation.nussl_compat import nussl
from separation.training.history import Epoch

logger = logging.getLogger(__name__)

#: keys of train_config that change how fast a training is, not what it learns
INDIFFERENT_KEYS = ("device", "num_workers", "data_parallel", "checkpoint_minutes", "save_by_epoch")


#: the latest state, and the one before it
STATE, STATE_BEFORE = "state.pt", "state.before.pt"


def fingerprint(config: Mapping[str, Any]) -> str:
    """A hash of all that a training's state depends on; a state with another one is not taken up."""
    relevant = {
        "seed": config["info"]["seed"],
        "dataset_config": {key: value for key, value in config["dataset_config"].items() if "cache" not in key},
        "train_config": {key: value for key, value in config["train_config"].items() if key not in INDIFFERENT_KEYS},
        "model_config": config["model_config"],
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replaces the state in `folder`; the one before is kept beside it.

    Both steps are atomic: a job that is killed here leaves one or two whole states. A state begins with the SHA-256 of
    the rest, as a file on a disk that was full or failed may look whole.

    Raises:
        UserError: where it cannot be written; the state before is as it was.
    """
    content = _bytes_of(lambda buffer: torch.save(dict(state), buffer))
    path = folder / STATE
    try:
        with atomic.atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            if path.exists():
                os.replace(path, folder / STATE_BEFORE)
    except OSError as error:
        raise UserError(
            f"the state of the training cannot be written: {error.strerror}; the one before is kept", file=path
        ) from error


def load_state(folder: Path, expected_fingerprint: str) -> dict[str, Any] | None:
    """The latest whole state, on the CPU, or None where there is none that belongs to this training."""
    for unfinished in folder.glob(".state.*"):
        unfinished.unlink()  # of a job that was killed while it wrote
    for name in (STATE, STATE_BEFORE):
        path = folder / name
        state = _read_state(path)
        if state is None:
            continue
        if state["fingerprint"] == expected_fingerprint:
            return state
        logger.warning("%s belongs to a training with another configuration; starting from the beginning", path)
        return None
    return None


def _read_state(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        logger.warning("%s cannot be read (damaged or cut off); going on from what was there before it", path)
        return None
    # plain tensors and containers only: nothing in a state file is executed
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def save_model(
    path: Path,
    model: torch.nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    config: Mapping[str, Any],
    epochs: Sequence[Epoch],
    splits: Mapping[str, Mapping[str, Any]],
    steps_per_epoch: int,
) -> None:
    """Writes a network as nussl's SeparationModel.save does, with the metadata by which nussl's algorithms use it.

    `nussl.separation.deep.DeepClustering(mixture, num_sources=2, model_path=path)` needs nothing else. The same weights
    and history give the same bytes: no time, host or absolute path is in the file.

    Args:
        path: of the file, written atomically.
        model: the SeparationModel; its weights are replaced by `state_dict`.
        state_dict: the weights.
        config: of the experiment.
        epochs: history up to the epoch of these weights.
        splits: of the datasets, for their names.
        steps_per_epoch: batches that an epoch has.
    """
    model.load_state_dict(state_dict)
    dataset_config, train_config = config["dataset_config"], config["train_config"]
    parameters = {
        "stft_params": nussl.STFTParams(
            window_length=dataset_config["n_fft"],
            hop_length=dataset_config["hop_length"],
            window_type=dataset_config["window_type"],
        ),
        "sample_rate": dataset_config["sample_rate"],
        "num_channels": dataset_config["num_channels"],
    }
    # how nussl's algorithms make the network's input from a mixture
    makers = {
        "mix_magnitude": lambda: _approximation(dataset_config["output_type"]),
        "mix_audio": nussl.datasets.transforms.GetAudio,
    }
    transforms = nussl.datasets.transforms.Compose(
        [*(make() for key, make in makers.items() if key in model.input), nussl.datasets.transforms.ToSeparationModel()]
    )
    metadata = {
        **parameters,
        "train_dataset": {**_dataset(splits["train"]), **parameters, "transforms": transforms},
        "val_dataset": {**_dataset(splits["val"]), **parameters, "transforms": transforms},
        "loss_dictionary": loss_dictionary(train_config["loss_function"]),
        "optimizer": {
            "name": train_config["optimizer"],
            "params": {"lr": train_config["learning_rate"], "weight_decay": train_config["weight_decay"]},
        },
        "trainer.state_dict": {
            "epoch": len(epochs),
            "epoch_length": steps_per_epoch,
            "max_epochs": train_config["num_epochs"],
            "output": {"loss": epochs[-1].train_loss},
            "metrics": {},
        },
        "trainer.state.epoch_history": {
            "train/loss": [epoch.train_loss for epoch in epochs],
            "validation/loss": [epoch.validation_loss for epoch in epochs],
        },
        "experiment_key": config["info"].get("experiment_key"),
    }
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(_bytes_of(lambda buffer: model.save(buffer, metadata=_interned(metadata))))


def _approximation(output_type: str) -> Any:
    """The transform by which nussl makes the network's input from a mixture."""
    transforms = nussl.datasets.transforms
    if output_type not in OUTPUT_TYPES:
        raise UserError(
            f"expected one of {', '.join(OUTPUT_TYPES)}, found {output_type!r}", key="dataset_config.output_type"
        )
    if output_type == "psa":
        return transforms.PhaseSensitiveSpectrumApproximation()
    return transforms.MagnitudeSpectrumApproximation()


def _dataset(split: Mapping[str, Any]) -> dict[str, str]:
    return {"name": split["class"], "folder": "/".join(Path(split["folder"]).parts[-2:])}


def _interned(value: Any) -> Any:
    """The same value with equal strings being one object: pickle writes a second object once more, so that the bytes
    of a file would tell where its strings came from."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {_interned(key): _interned(inner) for key, inner in value.items()}
    return [_interned(inner) for inner in value] if isinstance(value, list) else value


def _bytes_of(save: Any) -> bytes:
    """What `save` writes to a buffer. torch puts a file's name into the file; a buffer has none."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()
