"""Checkpoints: the state to resume from, verified by checksum, and networks that nussl loads."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from separation.errors import UserError
from separation.experiment.ids import excluded_keys
from separation.experiment.options import PointOptions
from separation.features.spectra import OUTPUT_TYPES
from separation.files import atomic
from separation.losses.combined import loss_dictionary
from separation.nussl_compat import nussl
from separation.training.history import Epoch

logger = logging.getLogger(__name__)

#: the latest state, and the previous one
STATE, PREVIOUS_STATE = "state.pt", "state.before.pt"


# states --------------------------------------------------------------------------------------------------------------


def fingerprint(config: Mapping[str, Any]) -> str:
    """A hash of everything that the training state depends on; a state with another one is not resumed.

    Args:
        config: Resolved config as written, see PointOptions.written.
    """
    # true changes the statistics of batch normalization; false is left out, as it always was
    excluded = [] if config["train_config"].get("data_parallel") else ["data_parallel"]
    return _fingerprint(config, excluded)


def accepted_fingerprints(config: Mapping[str, Any]) -> set[str]:
    """The fingerprints of states that a training resumes: its own, and that of versions without data_parallel in it.

    Such a state is in the folder of its point, and data_parallel is part of the point's id.
    """
    return {fingerprint(config), _fingerprint(config, ["data_parallel"])}


def _fingerprint(config: Mapping[str, Any], excluded: Sequence[str]) -> str:
    excluded = [*excluded, *excluded_keys("train_config")]
    relevant = {
        "seed": config["info"]["seed"],
        "dataset_config": {key: value for key, value in config["dataset_config"].items() if "cache" not in key},
        "train_config": {key: value for key, value in config["train_config"].items() if key not in excluded},
        "model_config": config["model_config"],
    }
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Replaces the state in `folder` and keeps the previous one beside it.

    Both steps are atomic: a job that is killed here leaves one or two complete states. A state file begins with the
    SHA-256 of the rest, as a file on a full or failing disk may look complete.

    Raises:
        UserError: The state cannot be written; the previous one is kept.
    """
    content = _bytes_of(lambda buffer: torch.save(dict(state), buffer))
    path = folder / STATE
    try:
        with atomic.atomic_path(path) as temporary:
            temporary.write_bytes(hashlib.sha256(content).digest() + content)
            if path.exists():
                os.replace(path, folder / PREVIOUS_STATE)
    except OSError as error:
        raise UserError(
            f"the training state cannot be written: {error.strerror}; the previous one is kept", file=path
        ) from error


def load_state(folder: Path, accepted: Collection[str]) -> dict[str, Any] | None:
    """The latest intact state, on the CPU; None if there is none or it belongs to a training with other settings.

    Args:
        folder: Folder of the states.
        accepted: Fingerprints of the training.
    """
    for unfinished in folder.glob(".state.*"):
        unfinished.unlink()  # of a job that was killed while writing
    for path in (folder / STATE, folder / PREVIOUS_STATE):
        state = _read_verified(path)
        if state is None:
            continue
        if state["fingerprint"] in accepted:
            return state
        logger.warning("%s belongs to a training run with other settings; starting from the beginning", path)
        return None
    return None


def _read_verified(path: Path) -> dict[str, Any] | None:
    """A state whose checksum matches; None if there is none."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        logger.warning("%s is damaged (checksum mismatch); falling back to the previous state", path)
        return None
    # plain tensors and containers only: nothing in a state file is executed
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


# networks ------------------------------------------------------------------------------------------------------------


def save_model(
    path: Path,
    model: torch.nn.Module,
    state_dict: Mapping[str, torch.Tensor],
    *,
    options: PointOptions,
    epochs: Sequence[Epoch],
    splits: Mapping[str, Mapping[str, Any]],
    steps_per_epoch: int,
) -> None:
    """Writes a network like nussl's SeparationModel.save, with the metadata that nussl's algorithms need.

    `nussl.separation.deep.DeepClustering(mixture, num_sources=2, model_path=path)` needs nothing else. The same weights
    and history give the same bytes: the file holds no time, host or absolute path.

    Args:
        path: File to write, atomically.
        model: SeparationModel; its weights are replaced by `state_dict`.
        state_dict: Weights to save.
        options: Settings of the point.
        epochs: History up to the epoch of these weights.
        splits: Splits that the network was trained on, for their names.
        steps_per_epoch: Steps of the optimizer in an epoch.
    """
    model.load_state_dict(state_dict)
    dataset, training = options.dataset, options.training
    parameters = {
        "stft_params": nussl.STFTParams(
            window_length=dataset.n_fft,
            hop_length=dataset.hop_length,
            window_type=dataset.window_type,
        ),
        "sample_rate": dataset.sample_rate,
        "num_channels": dataset.num_channels,
    }
    # the transforms with which nussl's algorithms compute the network's input from a mixture
    input_transforms = {
        "mix_magnitude": lambda: _approximation(dataset.output_type),
        "mix_audio": nussl.datasets.transforms.GetAudio,
    }
    transforms = nussl.datasets.transforms.Compose(
        [
            *(make() for key, make in input_transforms.items() if key in model.input),
            nussl.datasets.transforms.ToSeparationModel(),
        ]
    )
    metadata = {
        **parameters,
        "train_dataset": {**_dataset(splits["train"]), **parameters, "transforms": transforms},
        "val_dataset": {**_dataset(splits["val"]), **parameters, "transforms": transforms},
        "loss_dictionary": loss_dictionary(training.loss_function),
        "optimizer": {
            "name": training.optimizer,
            "params": {"lr": training.learning_rate, "weight_decay": training.weight_decay},
        },
        "trainer.state_dict": {
            "epoch": len(epochs),
            "epoch_length": steps_per_epoch,
            "max_epochs": training.num_epochs,
            "output": {"loss": epochs[-1].train_loss},
            "metrics": {},
        },
        "trainer.state.epoch_history": {
            "train/loss": [epoch.train_loss for epoch in epochs],
            "validation/loss": [epoch.validation_loss for epoch in epochs],
        },
        "experiment_key": options.point,
    }
    with atomic.atomic_path(path) as temporary:
        temporary.write_bytes(_bytes_of(lambda buffer: model.save(buffer, metadata=_interned(metadata))))


def _approximation(output_type: str) -> Any:
    """The transform with which nussl computes the magnitude of a mixture."""
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
    """The value with equal strings as one object.

    pickle writes each string object once, so the bytes of a file would otherwise depend on where its strings came from.
    """
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, dict):
        return {_interned(key): _interned(inner) for key, inner in value.items()}
    return [_interned(inner) for inner in value] if isinstance(value, list) else value


def _bytes_of(save: Any) -> bytes:
    """The bytes that `save` writes to a buffer: torch would put the name of a file into it."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()
