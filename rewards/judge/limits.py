"""How fast an endpoint is asked: so many at a time, so many a minute, and nobody while it asks for a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

MAX_BACKOFF_S = 20.0


class Gate:
    """Admits requests; all that wait share the pause that a `Retry-After` asks for. Lives in one event loop."""

    def __init__(self, concurrency: int, per_minute: float | None) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._interval_s = 0.0 if per_minute is None else 60.0 / per_minute
        self._next = 0.0
        """Loop time at which the next request may start."""

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Hold a slot from the start of a request to its end."""
        async with self._slots:
            loop = asyncio.get_running_loop()
            while (wait := self._next - loop.time()) > 0:
                await asyncio.sleep(wait)
            self._next = loop.time() + self._interval_s
            yield

    def pause(self, seconds: float) -> None:
        """Start no request for so long."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


def backoff(base_s: float, attempt: int, jitter: float) -> float:
    """Seconds before retry number `attempt` (from 0): base 2^attempt, at most 20, times 1/2 to 1 by `jitter` in [0, 1).

    The jitter keeps clients that failed together from coming back together.
    """
    return min(base_s * 2.0**attempt, MAX_BACKOFF_S) * (0.5 + 0.5 * jitter)
