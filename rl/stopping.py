"""A request to stop a run: what it ends at once, and what it ends when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class CutShortError(Exception):
    """Work was broken off because the run is to stop; what it would have given is not there."""


class StopRequest:
    """`asked` is set by `ask`, and `overdue` `within_s` seconds later."""

    def __init__(self, within_s: float) -> None:
        self.within_s = within_s
        self.asked, self.overdue = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Ask the run to stop; the time counts from the first call."""
        if not self.asked.is_set():
            self.asked.set()
            asyncio.get_running_loop().call_later(self.within_s, self.overdue.set)


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled once `event` is set, or not begun if it is set already.

    Raises:
        CutShortError: the event came first.
    """
    if event.is_set():
        work.close()
        raise CutShortError
    doing, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise CutShortError
        return doing.result()
    finally:
        waiting.cancel()
        doing.cancel()
        await asyncio.gather(doing, return_exceptions=True)
