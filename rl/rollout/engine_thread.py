"""The thread that an in-process engine runs on: calls and steps take turns, so that nothing meets half a step.

A failure of a step, or one that a call declares, is the end: what is in flight fails, and nothing is served after.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from rl.errors import EngineDeadError, EngineError, SyncError
from rl.rollout.busy import BusyIntervals

T = TypeVar("T")

_CLOSE_S = 10.0


class EngineThread:
    """See the module docstring.

    Args:
        kind: the engine's name in messages.
        has_work: whether there is something to step for. Runs on the thread, as `step` does.
    """

    def __init__(self, kind: str, has_work: Callable[[], bool], step: Callable[[], None]) -> None:
        self._kind, self._has_work, self._step = kind, has_work, step
        self._wake = threading.Condition()
        self._calls: list[tuple[Callable[[], Any], Future[Any]]] = []
        self._requests: dict[str, Future[Any]] = {}
        self._failure: BaseException | None = None
        self._stopping = self._paused = False
        self.busy = BusyIntervals()
        """When it stepped."""
        self._thread = threading.Thread(target=self._run, name=f"{kind}-engine", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], T]) -> T:
        """What `function`, run between two steps, returns or raises.

        Raises:
            EngineDeadError: the thread has ended.
        """
        future = _pending()
        with self._wake:
            if self._failure is not None or self._stopping:
                raise EngineDeadError(f"the {self._kind} engine is not running: {self._failure!r}")
            self._calls.append((function, future))
            self._wake.notify()
        result: T = await asyncio.wrap_future(future)
        return result

    async def swap(self, version: int, load: Callable[[], T]) -> T:
        """What `load`, run as by `call`, returns; it declares a failure half-way with `fail`.

        Raises:
            SyncError: `load` failed.
            EngineDeadError: the thread has ended.
        """
        try:
            return await self.call(load)
        except EngineError:
            raise
        except Exception as exc:
            raise SyncError(f"the engine could not load version {version} and refuses further work: {exc}") from exc

    async def request(self, request_id: str, add: Callable[[], None]) -> Any:
        """Hand a request in with `add`, run as by `call`, and wait for what `finish` is given for it.

        Raises:
            EngineError: the id is in flight, or `add` refused.
            EngineDeadError: the engine died, before or after.
        """
        future = _pending()

        def enter() -> None:
            if request_id in self._requests:
                raise EngineError(f"request {request_id} is in flight already; every request needs an id of its own")
            self._requests[request_id] = future
            try:
                add()
            except BaseException:
                del self._requests[request_id]
                raise

        try:
            await self.call(enter)
        except EngineError:
            raise
        except Exception as exc:
            raise EngineError(f"{self._kind} refused request {request_id}: {exc}") from exc
        return await asyncio.wrap_future(future)

    async def pause(self, paused: bool) -> None:
        """Take no steps, or take them again; calls run either way. Returns once no step runs."""

        def change() -> None:
            self._paused = paused

        await self.call(change)

    def finish(self, request_id: str, result: Any) -> None:
        """On the thread: end a request; with an exception as result its waiter fails. No matter if it has ended."""
        future = self._requests.pop(request_id, None)
        if future is not None:
            _settle(future, result)

    def fail(self, cause: BaseException) -> None:
        """On the thread, in a call: end after this call."""
        self._failure = cause

    def close(self) -> None:
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout=_CLOSE_S)

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    while not (self._calls or self._stopping or self._can_step()):
                        self._wake.wait()
                    if self._stopping:
                        break
                    calls, self._calls = self._calls, []
                for function, future in calls:
                    try:
                        _settle(future, function())
                    except BaseException as exc:
                        future.set_exception(exc)
                if self._failure is not None:
                    break
                if self._can_step():
                    started = time.time()
                    self._step()
                    self.busy.note(started, time.time())
        except BaseException as exc:
            self._failure = exc
        finally:
            self._fail_pending()

    def _can_step(self) -> bool:
        return not self._paused and self._has_work()

    def _fail_pending(self) -> None:
        reason = f"the {self._kind} engine " + (f"died: {self._failure!r}" if self._failure else "was closed")
        with self._wake:
            self._stopping = True
            waiting = [future for _, future in self._calls] + list(self._requests.values())
            self._calls, self._requests = [], {}
        for future in waiting:
            future.set_exception(EngineDeadError(reason))


def _pending() -> Future[Any]:
    """A future that its waiter can't cancel: the engine thread sets a result in any case, heard or not."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


def _settle(future: Future[Any], result: Any) -> None:
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
