"""What a training keeps on disk: the state to go on from, and networks that nussl loads."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from separation import files
from separation.errors import UserError
from separation.features import OUTPUT_TYPES
from separation.history import Epoch
from separation.losses import loss_dictionary
from separation.nussl_compat import nussl

logger = logging.getLogger(__name__)

#: keys of train_config that change how fast a training is, not what it learns
INDIFFERENT_KEYS = ("device", "num_workers", "data_parallel")


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
    """Replaces the state in `folder`, atomically: a job that is killed here leaves the state before or this one."""
    _save(dict(state), folder / "state.pt")


def load_state(folder: Path, expected_fingerprint: str) -> dict[str, Any] | None:
    """The state to go on from, on the CPU, or None where there is none that belongs to this training."""
    path = folder / "state.pt"
    if not path.exists():
        return None
    try:
        # plain tensors and containers only: nothing in a state file is executed
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        logger.warning("%s cannot be read (%s); starting from the beginning", path, error)
        return None
    if state["fingerprint"] != expected_fingerprint:
        logger.warning("%s belongs to a training with another configuration; starting from the beginning", path)
        return None
    return state


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
    transforms = nussl.datasets.transforms.Compose(
        [_approximation(dataset_config["output_type"]), nussl.datasets.transforms.ToSeparationModel()]
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
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(_bytes_of(lambda buffer: model.save(buffer, metadata=metadata)))


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


def _save(value: Any, path: Path) -> None:
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(_bytes_of(lambda buffer: torch.save(value, buffer)))


def _bytes_of(save: Any) -> bytes:
    """What `save` writes to a buffer. torch puts a file's name into the file; a buffer has none."""
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()
