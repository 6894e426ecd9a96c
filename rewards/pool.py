"""Grading in worker processes with a deadline each: hostile text can neither hang nor crash the caller.

    with RewardPool(workers=4, timeout_s=1.0) as pool:
        results = pool.score_many([Request("<answer>4</answer>", "4", "number")])

One thread of the caller's process, a lane, stands behind each worker: it takes a few requests from the common queue,
sends them in one message and waits for each result in turn. A result that is late means the worker is killed, the
request ends as `timeout` and is not tried again, and the requests behind it go back to the front of the queue. Nothing
here needs the main thread, signals or an event loop, so it works in a Ray actor as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rewards import plugins as plugin_files
from rewards import registry
from rewards.base import RewardResult, failed, graded
from rewards.limits import SLOW, check_memory, check_settings
from rewards.request import Request
from rewards.worker import PoolError, Template, Worker, WorkerSetup, describe_exit

MAX_BATCH = 32
MAX_BATCH_BYTES = 4 * 2**20
MAX_CHARS = 500_000


@dataclass(slots=True, eq=False)
class _Call:
    """One call of `score_many`: its results so far, and the future that its caller waits for."""

    results: list[RewardResult | None]
    left: int
    future: Future[list[RewardResult]] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, position: int, result: RewardResult) -> None:
        with self.lock:
            self.results[position] = result
            self.left -= 1
            done = self.left == 0
        if done:
            with contextlib.suppress(InvalidStateError):  # the caller has cancelled
                self.future.set_result([item for item in self.results if item is not None])


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    call: _Call
    position: int
    payload: bytes
    timeout_s: float

    def finish(self, result: RewardResult) -> None:
        self.call.finish(self.position, result)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.call.future.set_exception(error)


class RewardPool:
    """Persistent, pre-warmed worker processes that grade requests.

    Args:
        workers: processes; each uses one core.
        timeout_s: seconds that one request may take, from the moment its worker turns to it.
        timeouts: other seconds for some answer types, over those of `limits.SLOW`, which hold for built-in verifiers
            unless named here.
        max_chars: a completion of more gets 0 and is not sent to a worker, whose queue it would hold up. The default is
            about what 128k tokens make.
        memory_mb: address space of a worker in MiB. Beyond it a request ends as `error`.
        preload: answer types whose verifiers are imported before the first request. Default: every built-in one and
            every installed plug-in whose libraries are installed. Those of `plugins` are always imported.
        plugins: further verifiers, answer type -> "module:attribute" or "path/to/file.py" (see `rewards.plugins`);
            they may replace built-in ones.

    The constructor returns when the verifiers are imported (about a second) and the workers can be forked.

    Raises:
        ValueError: an argument out of range, or less memory than a verifier named here needs.
        UnknownVerifier: `preload` names an answer type without a verifier.
        PluginError: a plug-in's file does not exist, or installed plug-ins claim one name.
        PoolError: the workers can't be started; the message holds the verifier and its error.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_s: float = 1.0,
        memory_mb: int = 2048,
        *,
        preload: Sequence[str] | None = None,
        plugins: Mapping[str, str] | None = None,
        timeouts: Mapping[str, float] | None = None,
        max_chars: int = MAX_CHARS,
    ) -> None:
        check_settings(workers, timeout_s, timeouts or {}, memory_mb)
        self._plugins = {name: plugin_files.absolute(target) for name, target in (plugins or {}).items()}
        if max_chars < 1:
            raise ValueError(f"max_chars is {max_chars}; set the most characters that a completion may have")
        self._max_chars = max_chars
        self._timeout_s = timeout_s
        self._workers = workers
        self._memory_mb = memory_mb
        built_in = {name: seconds for name, seconds in SLOW.items() if name not in self._plugins}
        self._timeouts = {**built_in, **(timeouts or {})}
        named = [*(preload or ()), *self._plugins]
        self.check_names([*named, *(timeouts or {})])
        check_memory(named, memory_mb, self._plugins)
        optional = sorted(registry.names(self._plugins)) if preload is None else []
        self._template = Template(WorkerSetup(memory_mb, self._plugins, named, optional))
        self._queue: deque[_Item] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._broken: PoolError | None = None
        self._live: set[Worker] = set()
        self._lanes = [threading.Thread(target=self._run_lane, daemon=True, name="reward-lane") for _ in range(workers)]
        for lane in self._lanes:
            lane.start()

    @property
    def may_judge(self) -> bool:
        """False: the judge of REWARDS_JUDGE is for trying things out, under deadlines made for verifiers."""
        return False

    def check_names(self, names: Iterable[str]) -> None:
        """Raise `UnknownVerifier` for the first answer type that nothing here can grade."""
        registry.check_names(names, self._plugins)

    def timeout_of(self, answer_type: str) -> float:
        """Seconds that one request of an answer type may take."""
        return self._timeouts.get(answer_type, self._timeout_s)

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
            UnknownVerifier: an answer type without a verifier; nothing has been scored then.
            ValueError: a request can't be sent to another process, or its verifier needs more memory than a worker has.
            PoolError: the pool is closed, or its workers can't be started any more.
        """
        return self._submit(requests).future.result()

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
        """`score_many` without blocking the event loop; cancelling it drops the requests that still wait."""
        return await asyncio.wrap_future(self._submit(requests).future)

    def close(self) -> None:
        """End all worker processes and wait for them; calls in flight raise `PoolError`. May be called twice."""
        with self._ready:
            self._closing = True
            waiting, live = list(self._queue), list(self._live)
            self._queue.clear()
            self._ready.notify_all()
        for item in waiting:
            item.fail(PoolError("the reward pool was closed before the request was graded"))
        for worker in live:
            worker.kill()  # wakes the lane that waits for it
        for lane in self._lanes:
            lane.join()
        self._template.close()

    def __enter__(self) -> RewardPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, requests: Iterable[Request]) -> _Call:
        batch = list(requests)
        wanted = {request.answer_type for request in batch}
        self.check_names(wanted)
        check_memory(wanted, self._memory_mb, self._plugins)
        call = _Call([None] * len(batch), len(batch))
        items = [
            _Item(call, position, _pack(request), self.timeout_of(request.answer_type))
            for position, request in enumerate(batch)
            if len(request.completion) <= self._max_chars
        ]
        with self._ready:
            if self._closing:
                raise PoolError("the reward pool is closed; make a new one")
            if self._broken is not None:
                raise self._broken
            self._queue.extend(items)
            self._ready.notify(len(items))
        for position, request in enumerate(batch):
            if len(request.completion) > self._max_chars:
                reason = f"not graded: {len(request.completion)} characters, over {self._max_chars}"
                call.finish(position, graded(0.0, reason))
        if not batch:
            call.future.set_result([])
        return call

    def _run_lane(self) -> None:
        worker: Worker | None = None
        batch: list[_Item] = []
        try:
            worker = self._new_worker()
            while batch := self._take():
                worker = self._serve(worker, batch)
        except PoolError as error:
            self._break(error, batch)
        except Exception as exc:  # a bug of ours: callers must get an exception, not wait for ever
            self._break(PoolError(f"a lane of the reward pool failed: {type(exc).__name__}: {exc}"), batch)
        finally:
            if worker is not None:
                self._drop(worker)

    def _take(self) -> list[_Item]:
        """The next requests for a lane, a fair share of the queue; empty when the pool closes."""
        batch: list[_Item] = []
        size = 0
        with self._ready:
            while not batch:
                while not self._queue and not self._closing:
                    self._ready.wait()
                if self._closing:
                    return []
                share = min(MAX_BATCH, 1 + len(self._queue) // (2 * self._workers))
                while self._queue and len(batch) < share and (not batch or size < MAX_BATCH_BYTES):
                    item = self._queue.popleft()
                    if not item.call.future.cancelled():
                        batch.append(item)
                        size += len(item.payload)
        return batch

    def _serve(self, worker: Worker, batch: list[_Item]) -> Worker:
        """Have a batch graded; returns the worker to go on with."""
        try:
            numbers = worker.send([item.payload for item in batch])
        except OSError:
            # It died idle, which no request has caused: all of them go to its successor.
            return self._replace(worker, batch)[0]
        for position, item in enumerate(batch):
            try:
                result = worker.receive(numbers[position], item.timeout_s)
            except EOFError:
                successor, code = self._replace(worker, batch[position + 1 :])
                item.finish(failed("error", f"the worker died on this request ({describe_exit(code)})"))
                return successor
            except ValueError as exc:  # not this one's result: a verifier, or a fork of it, wrote into the socket
                item.finish(failed("error", f"the worker's reply can't be used: {exc!s:.200}"))
                return self._replace(worker, batch[position + 1 :])[0]
            if result is None:
                item.finish(failed("timeout", f"not graded within {item.timeout_s:g} s"))
                return self._replace(worker, batch[position + 1 :])[0]
            item.finish(result)
        return worker

    def _replace(self, worker: Worker, unserved: list[_Item]) -> tuple[Worker, int | None]:
        """Put requests back, kill the worker and fork another; returns it and the exit code of the first."""
        with self._ready:
            closing = self._closing
            if not closing:
                self._queue.extendleft(reversed(unserved))
                self._ready.notify(len(unserved))
        if closing:
            raise PoolError("the reward pool was closed before the request was graded")
        code = self._drop(worker)
        return self._new_worker(), code

    def _new_worker(self) -> Worker:
        worker = self._template.fork()
        with self._ready:
            self._live.add(worker)
            closing = self._closing
        if closing:
            self._drop(worker)
            raise PoolError("the reward pool is closed")
        return worker

    def _drop(self, worker: Worker) -> int | None:
        with self._ready:
            self._live.discard(worker)
        return self._template.reap(worker)

    def _break(self, error: PoolError, batch: list[_Item]) -> None:
        """A lane can't go on: fail what it held and what waits, and refuse what comes."""
        with self._ready:
            if not self._closing:
                self._broken = error
            waiting = list(self._queue)
            self._queue.clear()
        for item in [*batch, *waiting]:
            item.fail(error)


def _pack(request: Request) -> bytes:
    answer = request.answer if isinstance(request.answer, str) else list(request.answer)
    sample = None if request.sample is None else dict(request.sample)
    try:
        return pickle.dumps((request.completion, answer, request.answer_type, request.prompt, sample))
    except Exception as exc:  # pickle raises what it likes, by type of the object
        raise ValueError(f"the request can't be sent to a worker process: {exc}; put plain data into `sample`") from exc
