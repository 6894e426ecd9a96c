"""The client of the reward service, with the interface of `RewardPool`.

    with RemotePool("http://rewards:8000", token=os.environ["REWARDS_TOKEN"]) as pool:
        results = pool.score_many([Request("<answer>4</answer>", "4", "number")])

One thread runs an event loop with the connections, so that it works from any thread and any event loop. A service that
is busy, restarting or gone for a moment is asked again until the deadline; grading twice does no harm.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from rewards.base import RewardResult, UnknownVerifier, failed
from rewards.libraries import missing_library
from rewards.request import Request
from rewards.worker import PoolError

if TYPE_CHECKING:
    import httpx

MAX_BATCH = 64
MAX_BATCH_BYTES = 4 * 2**20
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
AGAIN = (408, 429, 502, 503, 504)
"""Statuses after which the same request may be answered."""

Result = TypeVar("Result")


class RemotePool:
    """Grades through the service at `url`.

    Args:
        url: `http://host:port`, with a path if the service lies behind one.
        token: what the service was started with; None for one on this machine.
        deadline_s: how long one call may take, retries included.
        connections: requests that are on their way at once.
        preload: answer types that the service must be able to grade; checked by the constructor.

    Raises:
        ValueError: `url` is no HTTP address.
        UnknownVerifier: the service lacks an answer type of `preload`.
        PoolError: the service can't be reached within the deadline, or refuses the token.
        ImportError: httpx is not installed; it comes with the extra `client`.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        deadline_s: float = 120.0,
        connections: int = 8,
        preload: Sequence[str] = (),
    ) -> None:
        try:
            import httpx
        except ModuleNotFoundError as exc:
            raise missing_library(exc, "RemotePool") from exc
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url is {url!r}; it must begin with http:// or https://")
        if deadline_s <= 0 or connections < 1:
            raise ValueError(f"deadline_s is {deadline_s} and connections {connections}; both must be above 0")
        self._url = url.rstrip("/")
        self._deadline_s = deadline_s
        self._closed = False
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        limits = httpx.Limits(max_connections=connections)
        self._client = httpx.AsyncClient(headers=headers, limits=limits, trust_env=False)
        self._places = asyncio.Semaphore(connections)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="remote-rewards")
        self._thread.start()
        self._max_batch, self._max_bytes, self._body_limit = MAX_BATCH, MAX_BATCH_BYTES, 0
        self._missing: dict[str, list[str]] = {}
        """Answer types of the service, with the libraries that it lacks for each."""
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
            if name not in self._missing:
                known_names = ", ".join(sorted(self._missing))
                raise UnknownVerifier(f"the service at {self._url} can't grade {name!r}; it knows {known_names}")
            if self._missing[name]:
                raise PoolError(f"the service at {self._url} lacks {', '.join(self._missing[name])} to grade {name!r}")

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
            PoolError: no answer within the deadline, the token is refused, or the pool is closed.
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
        response = await self._ask("GET", "/v1/verifiers", None, self._until())
        known = _json(response)
        limits = known["limits"]
        self._max_batch = min(MAX_BATCH, limits["max_batch"])
        self._body_limit = limits["max_body_bytes"]
        self._max_bytes = min(MAX_BATCH_BYTES, self._body_limit)
        self._missing = {item["name"]: item["missing"] for item in known["verifiers"]}
        self.check_names(preload)

    async def _score(self, requests: list[Request]) -> list[RewardResult]:
        until = self._until()
        packed = [_pack(request) for request in requests]
        results: list[RewardResult | None] = [None] * len(packed)
        try:
            async with asyncio.TaskGroup() as group:
                for start, part in self._parts(packed):
                    group.create_task(self._score_part(start, part, results, until))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        except asyncio.CancelledError:
            if self._closed:
                raise PoolError("the remote reward pool was closed before the request was graded") from None
            raise
        return [result for result in results if result is not None]

    async def _score_part(
        self, start: int, part: list[bytes], results: list[RewardResult | None], until: float
    ) -> None:
        if len(part) == 1 and len(part[0]) + 100 > self._body_limit:
            results[start] = failed(
                "error", f"a request of {len(part[0])} bytes, over the service's {self._body_limit}"
            )
            return
        body = b'{"requests": [' + b", ".join(part) + b"]}"
        async with self._places:
            response = await self._ask("POST", "/v1/score_batch", body, until)
        for offset, row in enumerate(_json(response)["results"]):
            results[start + offset] = RewardResult(row["value"], row["status"], row["components"], row["detail"])

    def _parts(self, packed: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
        """(position of the first, requests) of each body to send."""
        start, size = 0, 0
        for i, item in enumerate(packed):
            if i > start and (i - start >= self._max_batch or size + len(item) + 100 > self._max_bytes):
                yield start, packed[start:i]
                start, size = i, 0
            size += len(item) + 2
        if packed:
            yield start, packed[start:]

    async def _ask(self, method: str, path: str, body: bytes | None, until: float) -> httpx.Response:
        """The service's answer, asked for until the deadline."""
        import httpx

        pause = FIRST_PAUSE_S
        last = "no attempt was made"
        while (left := until - time.monotonic()) > 0:
            wait = pause * random.uniform(0.5, 1.0)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            try:
                response = await self._client.request(
                    method, self._url + path, content=body, timeout=left, headers={"Content-Type": "application/json"}
                )
            except httpx.TransportError as exc:
                last = f"{type(exc).__name__}: {exc}"
            else:
                if response.status_code not in AGAIN:
                    return self._accepted(response)
                last = f"{response.status_code}: {_message(response)}"
                wait = max(wait, _retry_after(response))
            await asyncio.sleep(min(wait, max(0.0, until - time.monotonic())))
        raise PoolError(
            f"the reward service at {self._url} gave no answer in {self._deadline_s:g} s; the last try: {last}"
        )

    def _accepted(self, response: httpx.Response) -> httpx.Response:
        if response.status_code == 200:
            return response
        message = _message(response)
        if response.status_code == 422 and _code(response) == "unknown_verifier":
            raise UnknownVerifier(message)
        if response.status_code == 422:
            raise ValueError(f"the reward service at {self._url} can't read a request: {message}")
        raise PoolError(f"the reward service at {self._url} answered {response.status_code}: {message}")

    def _until(self) -> float:
        return time.monotonic() + self._deadline_s


def _pack(request: Request) -> bytes:
    answer = request.answer if isinstance(request.answer, str) else list(request.answer)
    row = {"completion": request.completion, "answer": answer, "answer_type": request.answer_type}
    if request.prompt is not None:
        row["prompt"] = request.prompt
    if request.sample is not None:
        row["sample"] = dict(request.sample)  # type: ignore[assignment]
    try:
        try:
            return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can only escape
            return json.dumps(row, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"the request can't be sent as JSON: {exc}; put plain data into `sample`") from exc


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as exc:
        raise PoolError(f"{response.url} did not answer with JSON; is this the reward service?") from exc


def _error(response: httpx.Response) -> Mapping[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _code(response: httpx.Response) -> str:
    return str(_error(response).get("code", ""))


def _message(response: httpx.Response) -> str:
    return str(_error(response).get("message") or response.text[:200])


def _retry_after(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else 0.0
