"""How much the service holds, and whether it takes more: the bounded queue behind 429 and the drain behind 503.

Used by one event loop, without locks.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rewards.service.settings import ServiceSettings

RATE_WINDOW_S = 10.0
MAX_RETRY_S = 60


class Refused(Exception):
    """A request that is not taken on; becomes the response."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_s = status, code, message, retry_after_s


class Load:
    """Counts of what is held, the admission against them, and the drain."""

    def __init__(self, settings: ServiceSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._finished: deque[tuple[float, int]] = deque()
        self._drain_until: float | None = None
        self.requests = 0
        """HTTP requests that score, from their first byte to the end of their response."""
        self.completions = 0
        """Completions admitted and not yet graded."""
        self.held_bytes = 0

    @property
    def draining(self) -> bool:
        return self._drain_until is not None

    def drain(self) -> None:
        """Take no more work. The second call changes nothing."""
        if self._drain_until is None:
            self._drain_until = self._clock() + self._settings.drain_limit_s

    def drained(self) -> bool:
        """True once draining has begun and nothing is left, or the time for it is over."""
        return self._drain_until is not None and (self.requests == 0 or self._clock() >= self._drain_until)

    @contextmanager
    def admitted(self, completions: int) -> Iterator[None]:
        """Hold a place for so many completions.

        Raises:
            Refused: 413 for more than any request may hold, 429 where there is no room now, 503 while draining.
        """
        limits = self._settings
        self.refuse_if_draining()
        if completions > limits.max_batch:
            message = f"{completions} completions in one request; at most {limits.max_batch} are taken, split the batch"
            raise Refused(413, "too_large", message)
        if self.completions + completions > limits.max_queue:
            raise self.busy(f"{self.completions} completions are waiting, at most {limits.max_queue} may")
        self.completions += completions
        try:
            yield
        finally:
            self.completions -= completions
            self._finished.append((self._clock(), completions))

    def hold(self, size: int) -> None:
        """Count bytes of a body; the caller gives them back by `held_bytes -= size`.

        Raises:
            Refused: 429 where all bodies together would be too much.
        """
        if self.held_bytes + size > self._settings.max_held_bytes:
            raise self.busy(f"requests of {self.held_bytes} bytes are being graded")
        self.held_bytes += size

    def refuse_if_draining(self) -> None:
        if self.draining:
            raise Refused(503, "draining", "the service is shutting down; ask another one", retry_after_s=1)

    def busy(self, why: str) -> Refused:
        """The refusal that says when to come back: when what is held should be done at the rate of the last seconds."""
        now = self._clock()
        while self._finished and self._finished[0][0] < now - RATE_WINDOW_S:
            self._finished.popleft()
        done = sum(count for _, count in self._finished)
        slowest = self._settings.workers / self._settings.timeout_s
        rate = max(done / RATE_WINDOW_S, slowest)
        wait = min(MAX_RETRY_S, max(1, math.ceil(self.completions / rate)))
        return Refused(429, "busy", f"{why}; try again in {wait} s", retry_after_s=wait)
