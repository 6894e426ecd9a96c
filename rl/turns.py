"""Who calls which member when engines have queues: calls wait here, first come first served, for a member with room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rl.members import Member, least_loaded
from rl.watch import at


@dataclass(slots=True, eq=False)
class _Turn:
    """A call that waits for a member."""

    weight: int
    alone: bool
    member: asyncio.Future[Member] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Turns:
    """See the module docstring. One event loop, no threads.

    Args:
        members: of the fleet, as they are at any time.
        ask: begins to find out about a member's queue, and calls `give` when it is known.
    """

    def __init__(self, members: Sequence[Member], ask: Callable[[Member], None]) -> None:
        self._members, self._ask = members, ask
        self._waiting: deque[_Turn] = deque()

    def __len__(self) -> int:
        """Calls that wait for a member."""
        return len(self._waiting)

    async def take(self, weight: int, alone: bool) -> Member:
        """A member with room, with `weight` added to its load and its queue, in order of asking.

        Args:
            alone: it must have nothing else in hand, nor get it before `end`.
        Raises:
            Exception: what `fail` was given.
        """
        turn = _Turn(weight, alone)
        self._waiting.append(turn)
        self.give()
        try:
            with at("no worker, all queues are long"):
                return await turn.member
        except asyncio.CancelledError:
            given = turn.member
            if given.done() and not given.cancelled() and given.exception() is None:
                given.result().queue.sent(-weight)
                self.end(given.result(), weight)
            raise

    def give(self) -> None:
        """Let those go whose turn it is. To be called when a member has changed."""
        while self._waiting:
            turn = self._waiting[0]
            if not turn.member.done():  # else its caller has gone away
                roomy = [member for member in self._members if _takes(member, turn)]
                if not roomy:
                    break
                member = least_loaded(roomy)
                member.give(turn.weight)
                member.alone = turn.alone
                member.queue.sent(turn.weight)
                turn.member.set_result(member)
            self._waiting.popleft()
        if self._waiting:
            for member in self._members:
                if member.accepts and not member.asking and not member.queue.has_room:
                    self._ask(member)

    def end(self, member: Member, weight: int) -> None:
        """A call of a member has ended, or was never made."""
        member.load -= weight
        if not member.load:
            member.alone = False
            if member.draining:
                member.idle.set()
        self.give()

    def fail(self, cause: BaseException) -> None:
        """End all waits with an exception."""
        for turn in self._waiting:
            if not turn.member.done():
                turn.member.set_exception(cause)
        self._waiting.clear()


def _takes(member: Member, turn: _Turn) -> bool:
    return member.accepts and member.queue.has_room and not member.alone and not (turn.alone and member.load)
