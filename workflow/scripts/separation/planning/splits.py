"""The splits of data that an experiment names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One split of an experiment's data.

    Attributes:
        dataset: the dataset's id.
        name: the recipe's name, or the class of a user's folder.
        split: the name of the split within the dataset.
        folder: where the mixtures are.
        manifest: the file by which the workflow knows that it has made them; None for a user's folder.
        entry: as the experiment file gives it, without the folder: of a recipe dataset and split, of a user's folder
            class and that class's arguments, among which `split` may be one.
    """

    dataset: str
    name: str
    split: str
    folder: str
    manifest: str | None
    entry: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        return {"id": self.dataset, "split": self.split, **{k: v for k, v in self.entry.items() if k != "split"}}

    @property
    def opener(self) -> dict[str, Any]:
        """The nussl class that reads the folder, and the class's arguments."""
        if self.manifest is not None:
            return {"class": "Scaper"}
        arguments = {key: value for key, value in self.entry.items() if key != "class"}
        return {"class": self.entry["class"], **({"arguments": arguments} if arguments else {})}

    @property
    def reader(self) -> dict[str, Any]:
        """What separation.data.items.Items opens."""
        return {**self.opener, "folder": self.folder, "dataset": self.name, "split": self.split}
