"""What every tracker has to be able to do, and how its failures are told."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from separation.files.layout import PointFolder
from separation.tracking.payload import Batch, Description
from separation.tracking.sent import Sent

# values that are told to nobody, wherever they turn up
SECRET_VARIABLES = ("COMET_API_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Unreachable(Exception):
    """A tracker cannot be reached, or does not take what it is sent: in one line.

    Args:
        message: why.
        refused: whether it was there, and did not want this one thing.
    """

    def __init__(self, message: str, *, refused: bool = False):
        self.refused = refused
        for variable in SECRET_VARIABLES:
            if os.environ.get(variable):
                message = message.replace(os.environ[variable], "***")
        super().__init__(" ".join(message.split())[:300])


class Tracker(ABC):
    """One tracker; making it imports its library.

    Args:
        options: of config/config.yaml.
        patience: seconds that a single request may take.
    """

    name: str
    title: str
    local = False  # whether it needs no network
    sure = True  # whether what `send` has returned from is with the tracker; else that is so once `close` has

    def __init__(self, options: Mapping[str, Any], patience: float):
        self.options, self.patience = options, patience

    @abstractmethod
    def new_key(self) -> str:
        """A key for a run that no tracker has heard of."""

    @abstractmethod
    def open(self, point: PointFolder, description: Description, sent: Sent) -> str | None:
        """Makes the run `sent.key`, or takes it up again, and gives the address of its page.

        Raises:
            Unreachable: that was not possible.
        """

    @abstractmethod
    def send(self, batch: Batch) -> None:
        """Sends a batch and, where the tracker is `sure`, returns when the tracker has it.

        Raises:
            Unreachable: it has not taken everything.
        """

    @abstractmethod
    def close(self, finished: bool) -> None:
        """Ends the connection, not the run.

        Raises:
            Unreachable: what was sent has not arrived.
        """

    @abstractmethod
    def archive(self, point: PointFolder, description: Description, batch: Batch, sent: Sent) -> Path | None:
        """Writes a batch as the tracker's own archive, without a network; None for a tracker on this machine's disk."""

    @abstractmethod
    def drop_archive(self, point: PointFolder) -> None:
        """Removes the archive of a point whose content has been sent."""
