"""Sources of an experiment: grouping, names and order of the sources of a mixture."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from separation.errors import UserError, nearest
from separation.experiment.options import DatasetOptions


@dataclass(frozen=True)
class Grouping:
    """The rule that turns the events of a mixture into the sources of an experiment.

    Attributes:
        groups: Labels of the members by name of the group; the audio of the members is summed.
        ignored: Labels that are not sources of the experiment. They stay audible in the mixture.
        order: Names of the sources in the requested order; empty for alphabetical order, which is nussl's.
    """

    groups: Mapping[str, tuple[str, ...]]
    ignored: frozenset[str]
    order: tuple[str, ...]

    @classmethod
    def from_options(cls, options: DatasetOptions) -> Grouping:
        """The rule in `group_sources`, `group_names`, `ignore_sources` and `source_labels`.

        `group_sources` is one group ([drums, bass, other]) or a list of groups. A group without a name in `group_names`
        is named after its members ("drums+bass+other").

        Raises:
            UserError: The lists do not fit together.
        """
        members = options.group_sources
        nested = [isinstance(member, tuple) for member in members]
        if any(nested) and not all(nested):
            found = [list(member) if isinstance(member, tuple) else member for member in members]
            raise UserError(
                f"expected labels or lists of labels, found both: {found}", key="dataset_config.group_sources"
            )
        groups = list(members) if any(nested) else [members] if members else []
        names = list(options.group_names or ["+".join(group) for group in groups])
        if len(names) != len(groups) or len(set(names)) != len(names):
            raise UserError(
                f"expected a unique name for each of the {len(groups)} groups of group_sources, found {names}",
                key="dataset_config.group_names",
            )
        ignored = frozenset(options.ignore_sources)
        grouped: set[str] = set()
        for group in groups:
            for member in group:
                if member in grouped or member in ignored:
                    raise UserError(
                        f"expected each label once in group_sources and ignore_sources, found {member!r} twice",
                        key="dataset_config.group_sources",
                    )
                grouped.add(member)
        return cls(dict(zip(names, groups, strict=True)), ignored, options.source_labels)

    def check(self, labels: Collection[str], *, file: str | Path) -> None:
        """Checks that a dataset has all labels that the rule names.

        Raises:
            UserError: The dataset lacks a label; the message lists those it has.
        """
        expected = [(label, "group_sources") for members in self.groups.values() for label in members]
        expected += [(label, "ignore_sources") for label in sorted(self.ignored)]
        for label, key in expected:
            if label not in labels:
                raise UserError(
                    f"the dataset has no source {label!r}, it has {', '.join(sorted(labels))}{nearest(label, labels)}",
                    file=file,
                    key=f"dataset_config.{key}",
                )

    def plan(self, labels: Sequence[str], *, file: str | Path, item: str) -> dict[str, list[int]]:
        """The sources of one item: for each name, the positions in `labels` whose audio is summed.

        A label that occurs once keeps its name. One that occurs n times gives `label::0` ... `label::n-1`, as in nussl.

        Args:
            labels: Label of each event of the item.
            file: Dataset shown in messages.
            item: Name of the item shown in messages.

        Raises:
            UserError: A group has no member in the item, or two sources have one name.
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
                    f"item {item} has both a source and a group named {name!r}",
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
                f"expected only {', '.join(self.order)}, found {', '.join(unlisted)} in item {item}",
                file=file,
                key="dataset_config.source_labels",
            )
        return {name: sources[name] for name in self.order if name in sources}
