"""The groups of a checkpoint that were finished and waited for the learner: a resumed run trains them as they are.

What the driver knows of them is in its state. Their tokens and pixels are written and read by the learner, in the
format of `rl.recording`, and never come to the driver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rl.batch.plan import GroupShare, UpdateShare
from rl.recording import RecordedGroup, RecordedUpdate, read_rank, write_rank
from rl.records import Grades, Group, GroupMeta, ScoredGroup

FOLDER = "groups"
"""Below a checkpoint's folder."""


def describe(groups: Sequence[ScoredGroup]) -> list[dict[str, Any]]:
    """All but the payloads, for JSON."""
    return [
        {"meta": asdict(group.meta), "rewards": list(group.rewards), "grades": _grades(group.grades)}
        for group in groups
    ]


def described(rows: Sequence[Mapping[str, Any]], payloads: Mapping[int, Any]) -> list[ScoredGroup]:
    """The groups of `describe` whose payload, by uid, there is."""
    return [
        ScoredGroup(
            GroupMeta(**_tuples(row["meta"])),
            payloads[row["meta"]["uid"]],
            tuple(row["rewards"]),
            Grades(**_tuples(row["grades"])),
        )
        for row in rows
        if row["meta"]["uid"] in payloads
    ]


def share_of(groups: Sequence[ScoredGroup]) -> UpdateShare:
    """The groups as the learner gets those that it only writes down."""
    return UpdateShare(tuple(GroupShare(group.payload, (), group.meta.uid) for group in groups), 0)


def write_groups(folder: Path, groups: Sequence[Group]) -> None:
    """Write tokens and pixels below a checkpoint's folder."""
    (folder / FOLDER).mkdir(parents=True)
    write_rank(folder / FOLDER, 0, [RecordedUpdate(tuple(RecordedGroup(group, ()) for group in groups), 0)])


def read_groups(folder: Path) -> list[Group]:
    """What `write_groups` wrote. Raises DataError if it is torn."""
    return [part.group for update in read_rank(folder / FOLDER, 0) for part in update.groups]


def _grades(grades: Grades) -> dict[str, Any]:
    """A plug-in's components may be numbers of numpy, which JSON does not know."""
    components = [{name: float(value) for name, value in each.items()} for each in grades.components]
    return asdict(grades) | {"components": components}


def _tuples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
