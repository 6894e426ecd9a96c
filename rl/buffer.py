"""Admission, ageing and release: what bounds staleness.

With B groups a step and bound S, at most B * (S + 1) groups are admitted and not yet released. A slot is released when
its group was filtered, failed or dropped, or when the weights that its step produced have reached every engine. So with
S = 0 nothing is admitted between a full batch and the next version: exactly synchronous.

Capacity alone does not bound the age of a slow group that others overtake. A batch takes the groups that began at the
oldest versions, and what has got too old all the same is handed out to be dropped. With `wait` a step waits instead for
a group that began long ago, where it would otherwise be too late for every step to come: earliest deadline first. No
group gets too old then, however long its completions are; engines go on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal

from rl.records import ScoredGroup


class StalenessBuffer:
    """Slots and finished groups; one event loop, no threads."""

    def __init__(self, groups_per_step: int, max_staleness: int, late: Literal["drop", "wait"] = "drop") -> None:
        self.groups_per_step = groups_per_step
        self.max_staleness = max_staleness
        self.late = late
        self.capacity = groups_per_step * (max_staleness + 1)
        self._used = 0
        self._ready: deque[ScoredGroup] = deque()
        self._sampled: dict[int, int] = {}
        """Version at which each group began that is being sampled or scored, by uid."""
        self._begun: Counter[int] = Counter()
        """How many of them began at each version; of the groups that are ready `_aged` says it."""
        self._aged: Counter[int] = Counter()
        self._changed = asyncio.Condition()

    @property
    def used(self) -> int:
        """Slots admitted and not yet released."""
        return self._used

    @property
    def ready(self) -> int:
        """Finished groups that wait for the learner."""
        return len(self._ready)

    async def admit(self) -> None:
        """Take a slot, waiting until one is free."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._used < self.capacity)
            self._used += 1

    def begin(self, uid: int, version: int) -> None:
        """A group with a slot is sampled from now on; no token of it will be of a version before `version`."""
        self._sampled[uid] = version
        self._begun[version] += 1

    def awaited(self, version: int) -> int:
        """Groups in sampling that the step from `version` waits for, lest one of them gets too old; 0 under `drop`.

        Of the groups that began at one version or before, `begun`, all must be trained within the `begun + S - version`
        steps after this one. Where more are left than those steps take, this one must take some of them.
        """
        if self.late == "drop":
            return 0
        places, sampled, left = self.groups_per_step, 0, 0
        for begun in sorted(self._begun.keys() | self._aged.keys()):
            taken = min(places, self._aged[begun])
            places -= taken
            sampled += self._begun[begun]
            left += self._begun[begun] + self._aged[begun] - taken
            if places and sampled and left > self.groups_per_step * (begun + self.max_staleness - version):
                return sampled
        return 0

    def finished(self) -> tuple[ScoredGroup, ...]:
        """The groups that wait for the learner, for `restore`."""
        return tuple(self._ready)

    def restore(self, groups: Sequence[ScoredGroup]) -> None:
        """Take in what had finished before a resumption, before anything is admitted.

        Each gets a slot, also where there are fewer than there were: nothing is admitted until enough are released.
        """
        self._used += len(groups)
        self._ready.extend(groups)
        self._aged.update(group.meta.oldest_version for group in groups)

    async def put(self, group: ScoredGroup) -> None:
        """Hand in a finished group; it keeps its slot."""
        async with self._changed:
            self._end(group.meta.uid)
            self._ready.append(group)
            self._aged[group.meta.oldest_version] += 1
            self._changed.notify_all()

    async def put_back(self, groups: Sequence[ScoredGroup]) -> None:
        """Hand groups of a batch in again, before all others; they keep their slots."""
        async with self._changed:
            self._ready.extendleft(reversed(groups))
            self._aged.update(group.meta.oldest_version for group in groups)
            self._changed.notify_all()

    async def drop(self, uid: int) -> None:
        """A group was filtered or has failed: it gives its slot back."""
        self._end(uid)
        await self.release()

    async def release(self, count: int = 1) -> None:
        """Give slots back."""
        async with self._changed:
            assert 0 < count <= self._used, f"released {count} slots of {self._used} in use"
            self._used -= count
            self._changed.notify_all()

    async def take(self, version: int) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
        """A batch for the step that starts from `version`, and the groups found too old on the way.

        Returns early, with an empty batch, when groups were dropped: the caller records and re-queues them first.
        The batch holds the oldest groups, in order of admission, so that a synchronous run does not depend on which
        group finished first.
        """
        async with self._changed:
            # This is asked at every put, so it must not look at all groups that are ready.
            await self._changed.wait_for(lambda: self._has_stale(version) or self._has_batch(version))
            ready = sorted(self._ready, key=lambda group: group.meta.oldest_version)
            count = sum(count for begun, count in self._aged.items() if begun < version - self.max_staleness)
            stale, batch = ready[:count], [] if count else ready[: self.groups_per_step]
            rest = ready[len(stale) + len(batch) :]
            self._ready = deque(rest)
            self._aged = Counter(group.meta.oldest_version for group in rest)
        return sorted(batch, key=lambda group: group.meta.uid), stale

    def _has_stale(self, version: int) -> bool:
        return any(begun < version - self.max_staleness for begun in self._aged)

    def _has_batch(self, version: int) -> bool:
        return len(self._ready) >= self.groups_per_step and not self.awaited(version)

    def _end(self, uid: int) -> None:
        version = self._sampled.pop(uid, None)
        if version is not None:
            self._begun -= Counter({version: 1})  # forgets versions without groups
