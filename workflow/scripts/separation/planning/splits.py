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
        dataset: Id of the dataset.
        name: Name of the recipe, or class of a user's folder.
        split: Name of the split within the dataset.
        folder: Folder of the mixtures.
        manifest: Manifest that the workflow writes after mixing; None for a user's folder.
        entry: Entry of the experiment file without the folder: `dataset` and `split` of a recipe, or `class` and
            arguments of that class, possibly with `split`.
    """

    dataset: str
    name: str
    split: str
    folder: str
    manifest: str | None
    entry: Mapping[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """The part of ids that determines the mixtures."""
        return {"id": self.dataset, "split": self.split, **{k: v for k, v in self.entry.items() if k != "split"}}

    @property
    def nussl_class(self) -> dict[str, Any]:
        """The nussl class that reads the folder, and the class's arguments."""
        if self.manifest is not None:
            return {"class": "Scaper"}
        arguments = {key: value for key, value in self.entry.items() if key != "class"}
        return {"class": self.entry["class"], **({"arguments": arguments} if arguments else {})}

    @property
    def items_arguments(self) -> dict[str, Any]:
        """The arguments of `separation.data.items.Items`."""
        return {**self.nussl_class, "folder": self.folder, "dataset": self.name, "split": self.split}
