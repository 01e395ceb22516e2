"""Which sources of a mixture count as one, what they are called, and in what order they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.errors import UserError, nearest


@dataclass(frozen=True)
class Grouping:
    """The rule that turns the events of a mixture into the sources of an experiment.

    Attributes:
        groups: name of a group -> labels of its members; their audio is summed.
        ignored: labels that are no source of the experiment. They stay audible in the mixture.
        order: the sources' names in the order wanted; empty for alphabetical order, which is nussl's.
    """

    groups: Mapping[str, tuple[str, ...]]
    ignored: frozenset[str]
    order: tuple[str, ...]

    @classmethod
    def from_config(cls, dataset_config: Mapping[str, Any]) -> Grouping:
        """Reads `group_sources`, `group_names`, `ignore_sources` and `source_labels` of a dataset_config.

        `group_sources` is one group ([drums, bass, other]) or a list of groups. A group without a name in `group_names`
        is called after its members ("drums+bass+other").

        Raises:
            UserError: the lists do not fit each other.
        """
        members = list(dataset_config.get("group_sources") or [])
        nested = [isinstance(member, (list, tuple)) for member in members]
        if any(nested) and not all(nested):
            raise UserError(
                f"expected labels or lists of them, found both: {members}", key="dataset_config.group_sources"
            )
        groups = [tuple(group) for group in members] if any(nested) else [tuple(members)] if members else []
        names = dataset_config.get("group_names")
        names = [names] if isinstance(names, str) else list(names or ["+".join(group) for group in groups])
        if len(names) != len(groups) or len(set(names)) != len(names):
            raise UserError(
                f"expected one name of its own for each of the {len(groups)} groups of group_sources, found {names}",
                key="dataset_config.group_names",
            )
        ignored = frozenset(dataset_config.get("ignore_sources") or [])
        grouped: set[str] = set()
        for group in groups:
            for member in group:
                if member in grouped or member in ignored:
                    raise UserError(
                        f"expected each label once in group_sources and ignore_sources, found {member!r} twice",
                        key="dataset_config.group_sources",
                    )
                grouped.add(member)
        return cls(dict(zip(names, groups, strict=True)), ignored, tuple(dataset_config.get("source_labels") or []))

    def check(self, labels: Collection[str], *, file: str | Path) -> None:
        """Compares the labels that the rule names with the `labels` a dataset has.

        Raises:
            UserError: a label that the dataset does not have, with those it has.
        """
        wanted = [(label, "group_sources") for members in self.groups.values() for label in members]
        wanted += [(label, "ignore_sources") for label in sorted(self.ignored)]
        for label, key in wanted:
            if label not in labels:
                raise UserError(
                    f"the dataset has no source {label!r}, it has {', '.join(sorted(labels))}{nearest(label, labels)}",
                    file=file,
                    key=f"dataset_config.{key}",
                )

    def plan(self, labels: Sequence[str], *, file: str | Path, item: str) -> dict[str, list[int]]:
        """The sources of one item: name -> positions in `labels` whose audio is summed, in the order of the sources.

        Args:
            labels: the label of each event of the item; a label may stand several times.
            file: the dataset, for messages.
            item: the item's name, for messages.

        A label that stands once keeps its name; one that stands n times gives `label::0` ... `label::n-1`, as in nussl.

        Raises:
            UserError: a group without a member in the item, or two sources of one name.
        """
        group_of = {member: name for name, members in self.groups.items() for member in members}
        sources: dict[str, list[int]] = {name: [] for name in self.groups}
        count: dict[str, int] = {}
        for position, label in enumerate(labels):
            if label in self.ignored:
                continue
            if label in group_of:
                sources[group_of[label]].append(position)
                continue
            name = f"{label}::{count.get(label, 0)}" if labels.count(label) > 1 else label
            count[label] = count.get(label, 0) + 1
            if name in sources:
                raise UserError(
                    f"item {item} has a source {name!r} besides the group of that name",
                    file=file,
                    key="dataset_config.group_names",
                )
            sources[name] = [position]
        for name in self.groups:
            if not sources[name]:
                raise UserError(
                    f"item {item} has none of {', '.join(self.groups[name])}, it has {', '.join(sorted(set(labels)))}",
                    file=file,
                    key="dataset_config.group_sources",
                )
        if not self.order:
            return {name: sources[name] for name in sorted(sources)}
        unlisted = sorted(set(sources) - set(self.order))
        if unlisted:
            raise UserError(
                f"expected {', '.join(self.order)} and no other, found {', '.join(unlisted)} in item {item}",
                file=file,
                key="dataset_config.source_labels",
            )
        return {name: sources[name] for name in self.order if name in sources}
