"""Which rank trains which groups in which update: control-plane arithmetic on lengths, no token data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rl.batch.packing import CostModel
from rl.records import ScoredGroup


@dataclass(frozen=True, slots=True)
class GroupShare:
    """One group as a learner rank gets it."""

    payload: Any
    """`rl.mail.Part` that is a `Group`."""
    advantages: tuple[float | None, ...]
    """Per completion; None leaves the completion out."""
    uid: int
    """The group's admission."""


@dataclass(frozen=True, slots=True)
class UpdateShare:
    """One rank's part of one optimizer update."""

    groups: tuple[GroupShare, ...]
    sequences: int
    """Sequences of the whole update over all ranks: the normaliser of sequence means."""


def plan_updates(
    groups: Sequence[ScoredGroup],
    advantages: Sequence[Sequence[float | None]],
    ranks: int,
    updates: int,
    cost: CostModel | None = None,
) -> list[list[UpdateShare]]:
    """Shares as `[rank][update]`: groups cut into `updates` in order, each spread over ranks by `cost`, else by tokens.

    The costliest groups are placed first, each on the rank with the least work so far. A group stays whole: its
    completions share prompt and images.
    """
    cost = cost or CostModel()
    assert len(groups) == len(advantages) and len(groups) % updates == 0
    size = len(groups) // updates
    shares: list[list[UpdateShare]] = [[] for _ in range(ranks)]
    for start in range(0, len(groups), size):
        members = range(start, start + size)
        sequences = sum(value is not None for i in members for value in advantages[i])
        costs = {i: _cost(groups[i], advantages[i], cost) for i in members}
        loads = [0.0] * ranks
        placed: list[list[int]] = [[] for _ in range(ranks)]
        for i in sorted(members, key=lambda i: (-costs[i], i)):
            rank = loads.index(min(loads))
            loads[rank] += costs[i]
            placed[rank].append(i)
        for rank in range(ranks):
            chosen = tuple(
                GroupShare(groups[i].payload, tuple(advantages[i]), groups[i].meta.uid) for i in sorted(placed[rank])
            )
            shares[rank].append(UpdateShare(chosen, sequences))
    return shares


def _cost(group: ScoredGroup, advantages: Sequence[float | None], cost: CostModel) -> float:
    """Of the completions that are trained, and of the images once."""
    meta = group.meta
    pairs = zip(meta.lengths, advantages, strict=True)
    sequences = sum(cost.of_tokens(meta.prompt_length + length) for length, value in pairs if value is not None)
    return sequences + sum(map(cost.of_image, meta.image_patches))
