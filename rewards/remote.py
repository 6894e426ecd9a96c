"""The client of the reward service, with the interface of `RewardPool`.

    with RemotePool("http://rewards:8000", token=os.environ["REWARDS_TOKEN"]) as pool:
        results = pool.score_many([Request("<answer>4</answer>", "4", "number")])

One thread runs an event loop with the connections, so that it works from any thread and any event loop. Grading twice
does no harm, so what a service did not answer is asked again. Who is at fault decides what happens:

    busy, restarting, gone for a moment (429, 503, no connection)   wait as told; say so; in the end `PoolError`
    one request that it does not take (413, 422, 500)               that request's result is an `error`, with its text
    a wrong url or token, an answer type that it lacks              `PoolError` or `UnknownVerifier` at once
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rewards.base import RewardResult, UnknownVerifier, failed
from rewards.libraries import missing_library
from rewards.remote_body import (
    Packed,
    batch_body,
    pack,
    parts,
    read_limits,
    read_results,
    refusal,
    retry_after,
    too_long,
)
from rewards.request import Request
from rewards.worker import PoolError

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
LONGEST_TOLD_S = 60.0
"""How long a Retry-After is believed: a service may be back sooner than it thought."""
CONNECT_S = 10.0
NOTICE_S = 30.0
"""How often the log tells of a service that grades nothing."""
MOST_DEFECTS = 16
"""Requests answered with 500, and none graded between them, after which it is the service that is broken."""

AGAIN = (408, 429, 502, 503, 504)
"""Statuses after which the same request may be answered."""
ABOUT_THE_REQUEST = (400, 413, 422, 500)
"""Statuses that another request need not get."""
WRONG_PLACE = {
    401: "set the token that it was started with",
    403: "it, or a proxy before it, does not let this client in",
    404: "the url must be where `rewards serve` listens, without /v1",
}

Result = TypeVar("Result")


class _Refused(Exception):
    """The service does not take this body."""


class RemotePool:
    """Grades through the service at `url`.

    Args:
        url: `http://host:port`, with a path if the service lies behind one.
        token: what the service was started with; None for one on this machine.
        patience_s: how long calls wait while the service grades nothing at all; every graded batch starts it anew.
        connections: requests that are on their way at once.
        preload: answer types that the service must be able to grade; checked by the constructor.

    Raises:
        ValueError: `url` is no HTTP address.
        UnknownVerifier: the service lacks an answer type of `preload`.
        PoolError: the service can't be reached within the patience, is none, or refuses the token.
        ImportError: httpx is not installed; it comes with the extra `client`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience_s: float = 600.0,
        connections: int = 8,
        preload: Sequence[str] = (),
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as exc:
            raise missing_library(exc, "RemotePool") from exc
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; it must begin with http:// or https://")
        if patience_s <= 0 or connections < 1:
            raise ValueError(f"patience_s is {patience_s} and connections {connections}; both must be above 0")
        self._url = url.rstrip("/")
        self._patience_s = patience_s
        self._closed = False
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=connections)
        self._client = httpx.AsyncClient(headers=headers, limits=limits, trust_env=False)
        self._places = asyncio.Semaphore(connections)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="remote-rewards")
        self._thread.start()
        self._asking = 0
        """HTTP requests that are waited for."""
        self._quiet_since = 0.0
        """When the service last answered 200, or since when there is something to answer."""
        self._last_try = "none yet"
        self._defects = 0
        self._notice: asyncio.TimerHandle | None = None
        try:
            self._start(self._connect(preload)).result()
        except BaseException:
            self.close()
            raise

    @property
    def may_judge(self) -> bool:
        """True: whether the service has a judge shows when it is asked; without one a result is an `error`."""
        return True

    def check_names(self, names: Iterable[str]) -> None:
        """Check answer types by what the service said when this client connected.

        Raises:
            UnknownVerifier: for the first one that the service does not know.
            PoolError: for the first one whose libraries it lacks.
        """
        for name in names:
            missing = self._limits.missing
            if name not in missing:
                known_names = ", ".join(sorted(missing))
                raise UnknownVerifier(f"the service at {self._url} can't grade {name!r}; it knows {known_names}")
            if missing[name]:
                raise PoolError(f"the service at {self._url} lacks {', '.join(missing[name])} to grade {name!r}")

    def score(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str,
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
    ) -> RewardResult:
        """Grade one completion; see `score_many`."""
        return self.score_many([Request(completion, answer, answer_type, prompt, sample)])[0]

    def score_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        """Grade requests; the results are in their order. Blocks the thread: in an event loop use `ascore_many`.

        Raises:
            UnknownVerifier: an answer type that the service does not know.
            ValueError: a request that can't be written as JSON.
            PoolError: the service has graded nothing for `patience_s`, or refuses this client; or the pool is closed.
        """
        return self._start(self._score(list(requests))).result()

    async def ascore(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str,
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
    ) -> RewardResult:
        """`score` without blocking the event loop."""
        return (await self.ascore_many([Request(completion, answer, answer_type, prompt, sample)]))[0]

    async def ascore_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        """`score_many` without blocking the event loop; cancelling it hangs up, which makes the service drop it."""
        return await asyncio.wrap_future(self._start(self._score(list(requests))))

    def close(self) -> None:
        """Close the connections; calls in flight raise `PoolError`. May be called twice."""
        if self._closed:
            return
        self._closed = True
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> RemotePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        if self._closed:
            work.close()
            raise PoolError("the remote reward pool is closed; make a new one")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _stop(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel("closed")
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()

    async def _connect(self, preload: Sequence[str]) -> None:
        """Learn the service's verifiers and limits."""
        self._limits = read_limits(await self._ask("GET", "/v1/verifiers", None))
        self.check_names(preload)

    async def _score(self, requests: list[Request]) -> list[RewardResult]:
        packed = [pack(request, self._limits) for request in requests]
        results: list[RewardResult | None] = [None] * len(packed)
        try:
            async with asyncio.TaskGroup() as group:
                for start, part in parts(packed, self._limits):
                    group.create_task(self._score_part(start, part, results))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        except asyncio.CancelledError:
            if self._closed:
                raise PoolError("the remote reward pool was closed before the request was graded") from None
            raise
        return [result for result in results if result is not None]

    async def _score_part(self, start: int, part: Sequence[Packed], results: list[RewardResult | None]) -> None:
        """Have some requests graded, from position `start`; of a body that is refused, each half by itself."""
        if too_long(part, self._limits):
            limit = self._limits.max_body_bytes
            results[start] = failed("error", f"a request of {len(part[0].body)} bytes, over the service's {limit}")
            return
        try:
            async with self._places:
                response = await self._ask("POST", "/v1/score_batch", batch_body(part))
        except _Refused as exc:
            if len(part) == 1:
                results[start] = failed("error", f"the reward service does not take this request: {exc}")
                return
            middle = len(part) // 2
            await self._score_part(start, part[:middle], results)
            await self._score_part(start + middle, part[middle:], results)
            return
        results[start : start + len(part)] = read_results(response, len(part))
        self._defects = 0

    async def _ask(self, method: str, path: str, body: bytes | None) -> httpx.Response:
        """The service's answer, asked for until it comes or patience is at its end.

        Raises:
            _Refused: this body is not taken, another might be.
        """
        import httpx

        pause = FIRST_PAUSE_S
        # An attempt under way is not cut short for what came before it: it may be the one that is graded.
        limit = httpx.Timeout(self._patience_s, connect=min(CONNECT_S, self._patience_s))
        headers = {"Content-Type": "application/json"}
        self._begin_asking()
        try:
            while time.monotonic() - self._quiet_since < self._patience_s:
                wait = pause * random.uniform(0.5, 1.0)
                pause = min(2 * pause, LONGEST_PAUSE_S)
                try:
                    response = await self._client.request(
                        method, self._url + path, content=body, timeout=limit, headers=headers
                    )
                except httpx.TransportError as exc:
                    self._last_try = f"{type(exc).__name__}: {exc}"
                else:
                    if response.status_code not in AGAIN:
                        return self._accepted(response)
                    self._last_try = f"{response.status_code}: {refusal(response)[1]}"
                    # All that were told the same time would come back at the same moment.
                    wait = max(wait, min(retry_after(response), LONGEST_TOLD_S) * random.uniform(1.0, 1.5))
                left = self._quiet_since + self._patience_s - time.monotonic()
                await asyncio.sleep(min(wait, max(0.0, left)))
        finally:
            self._end_asking()
        raise PoolError(
            f"the reward service at {self._url} has graded nothing for {self._patience_s:g} s (patience_s); "
            f"the last try: {self._last_try}"
        )

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        """A response that is the answer, for good or ill."""
        status = response.status_code
        if status == 200:
            self._quiet_since = time.monotonic()
            return response
        code, message = refusal(response)
        if code == "unknown_verifier":
            raise UnknownVerifier(message)
        self._defects += status == 500
        if status in ABOUT_THE_REQUEST and self._defects <= MOST_DEFECTS and response.request.method == "POST":
            raise _Refused(f"{status}: {message}")
        hint = f"; {WRONG_PLACE[status]}" if status in WRONG_PLACE else ""
        raise PoolError(f"the reward service at {self._url} answered {status}: {message}{hint}")

    def _begin_asking(self) -> None:
        if self._asking == 0:
            self._quiet_since = time.monotonic()
            self._notice = self._loop.call_later(NOTICE_S, self._tell)
        self._asking += 1

    def _end_asking(self) -> None:
        self._asking -= 1
        if self._asking == 0 and self._notice is not None:
            self._notice.cancel()

    def _tell(self) -> None:
        """Log what is waited for, where nothing has come for a while."""
        quiet = time.monotonic() - self._quiet_since
        if quiet >= NOTICE_S:
            logger.warning(
                "the reward service at %s has graded nothing for %.0f s; %d requests wait for it, the last try: %s. "
                "Giving up after %g s (patience_s)",
                self._url,
                quiet,
                self._asking,
                self._last_try,
                self._patience_s,
            )
        self._notice = self._loop.call_later(NOTICE_S, self._tell)
