"""The interface of a tracker, and the error for one that fails."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.payload import Batch, Description
from separation.tracking.sent import Sent

# their values are masked in every message
SECRET_VARIABLES = ("COMET_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Unreachable(Exception):
    """A tracker cannot be reached or rejects data; one line, without secrets.

    Args:
        message: Cause of the failure.
        rejected: Whether the tracker was reached and rejected only this batch.
    """

    def __init__(self, message: str, *, rejected: bool = False):
        self.rejected = rejected
        for variable in SECRET_VARIABLES:
            if os.environ.get(variable):
                message = message.replace(os.environ[variable], "***")
        super().__init__(" ".join(message.split())[:300])


class Tracker(ABC):
    """A tracker; creating one imports its client library.

    Args:
        options: The tracker's section of config/config.yaml.
        patience: Longest time a single request may take, in seconds.
    """

    name: str
    title: str
    local = False  # whether it works without a network
    confirms = True  # whether a batch has arrived when `send` returns; otherwise only when `close` returns

    def __init__(self, options: Mapping[str, Any], patience: float):
        self.options, self.patience = options, patience

    @abstractmethod
    def new_key(self) -> str:
        """A key for a new run."""

    @abstractmethod
    def open(self, point: PointFolder, description: Description, sent: Sent) -> str | None:
        """Creates or resumes the run `sent.key`; returns the address of its page, if it has one.

        Raises:
            Unreachable: The run could not be opened.
        """

    @abstractmethod
    def send(self, batch: Batch) -> None:
        """Sends a batch; if the tracker `confirms`, returns when the batch has arrived.

        Raises:
            Unreachable: Part of the batch did not arrive.
        """

    @abstractmethod
    def close(self, finished: bool) -> None:
        """Closes the connection, not the run.

        Args:
            finished: Whether the training run has finished.

        Raises:
            Unreachable: Part of the data did not arrive.
        """

    @abstractmethod
    def archive(self, point: PointFolder, description: Description, batch: Batch, sent: Sent) -> Path | None:
        """Writes a batch to the tracker's own offline archive; None if the tracker stores runs on this machine."""

    @abstractmethod
    def drop_archive(self, point: PointFolder) -> None:
        """Removes the archive of a point after its content was sent."""
