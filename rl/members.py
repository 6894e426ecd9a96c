"""The members of a fleet: actor, state, how long the engine's queue is; who is called, and why nobody can be."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rl.rollout.engine import EngineLoad

_CALLS = itertools.count(1)
State = Literal["starting", "serving", "draining", "down", "given up"]


@dataclass(frozen=True, slots=True)
class Change:
    """A member that was replaced, came or went. Unix times."""

    name: str
    start: float
    end: float
    """When it took its first call or was ready to; of one that went, when it was gone."""
    cause: str
    phase: Literal["down", "join", "drain"] = "down"


class Queue:
    """What the driver knows of an engine's queue: its last report, and what was sent since.

    An engine has room while no more sequences wait than decode: as soon as some finish, others are at hand, and what
    is left in the driver goes to whichever engine is free first, under the newest weights. A small cache, or long
    sequences that fill it, shorten the queue by themselves: fewer decode then.
    """

    def __init__(self) -> None:
        self._report, self._sent, self._counted = EngineLoad(), 0, 0

    def sent(self, sequences: int) -> None:
        """Sequences are on their way to the engine; fewer than none if they are not after all."""
        self._sent += sequences

    def asked(self) -> None:
        """A report is under way; it will count what was sent before this."""
        self._counted = self._sent

    def reported(self, load: EngineLoad) -> None:
        self._report, self._sent, self._counted = load, self._sent - self._counted, 0

    @property
    def has_room(self) -> bool:
        load = self._report
        if load.slots is None:
            return True
        # Where something waits, no slot is of use: cache is what lacks.
        free = 0 if load.waiting else load.slots - load.running
        taken = min(self._sent, free)
        return load.waiting + self._sent - taken <= load.running + taken


@dataclass(slots=True, eq=False)
class Member:
    """A name and the actor that has it now."""

    name: str
    actor: Any
    serving: bool = True
    """It gets weights and pings; and calls, unless it is draining."""
    draining: bool = False
    given_up: bool = False
    load: int = 0
    """Weights of the calls that it has in hand."""
    alone: bool = False
    """What it has in hand may be what kills workers: it gets nothing else beside it."""
    called: int = 0
    """Number of the last call that it got, among the calls of all members."""
    deaths: int = 0
    """In a row, without a finished call in between."""
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a draining member has no call in hand, or is lost."""
    queue: Queue = field(default_factory=Queue)
    asking: bool = False
    """A report of its engine is under way."""
    fresh: bool = False
    """It has not served yet."""
    waits: bool = False
    """It starts, and Ray was seen to have no process for its actor yet."""
    since: float = field(default_factory=time.monotonic)
    """When it began to serve, or ceased to."""

    def give(self, weight: int) -> None:
        """Add a call to what it has in hand."""
        self.load += weight
        self.called = next(_CALLS)

    def serve(self, yes: bool) -> None:
        self.serving, self.since = yes, time.monotonic()

    @property
    def accepts(self) -> bool:
        return self.serving and not self.draining

    @property
    def state(self) -> State:
        if self.given_up:
            return "given up"
        if self.draining:
            return "draining"
        return "serving" if self.serving else "starting" if self.fresh else "down"

    @property
    def stranded(self) -> bool:
        """It does not serve, and nothing is under way by which it would: it has not even a process."""
        return self.given_up or self.waits


def least_loaded(members: Sequence[Member]) -> Member:
    """Of equal loads the one that waits longest: one that nobody calls would never show that it is well again."""
    return min(members, key=lambda member: (member.load, member.called))


def describe_outage(members: Sequence[Member], limit_s: float) -> str:
    """Why a fleet ends all of whose members have been stranded for `limit_s` seconds, and what to do."""
    now = time.monotonic()
    states = [f"{member.name} ({member.state}) has not served for {now - member.since:.0f} s" for member in members]
    waiting = [member.name for member in members if member.waits and not member.given_up]
    return (
        f"no worker serves, and none has had a process for {limit_s:g} s: {', '.join(states)}. No process yet for "
        f"{', '.join(waiting)}: the cluster has no room or no node, see `ray status`. Add a node, or raise "
        "faults.start_s of the pool if nodes take that long to come"
    )
