"""Many small calls to an actor in few remote ones.

A remote call costs caller and actor a third of a millisecond of processor time or more, each, whatever it carries. Here
the questions of one turn of the caller's event loop go in one call, and one call at a time waits at the actor and
brings back whatever has been answered: the more there is to do, the more each call carries.

    Mailbox, at the caller                     Desk, in the actor
    ask(question) -------- take([...]) ------> work(question), each in a task of its own
    its answer <---------- collect() --------- all that are done

An answer is pickled by itself, so that one that can't be is the failure of its own question and no other's.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

Letter = tuple[int, bytes]
"""A question or an answer, pickled, and the question's number."""
_NUMBERS = itertools.count()


class Desk:
    """The actor's end. The actor passes its methods `take` and `collect` on to this. One event loop, no threads.

    Args:
        work: answers one question.
    """

    def __init__(self, work: Callable[[Any], Awaitable[Any]]) -> None:
        self._work = work
        self._done: list[Letter] = []
        self._some = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, questions: Sequence[Letter]) -> None:
        """Begin to work at these, in their order."""
        for number, question in questions:
            task = asyncio.create_task(self._answer(number, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> list[Letter]:
        """What was answered since the last call, once there is something."""
        await self._some.wait()
        self._some.clear()
        done, self._done = self._done, []
        return done

    async def _answer(self, number: int, question: bytes) -> None:
        try:
            sealed = pickle.dumps((True, await self._work(pickle.loads(question))), pickle.HIGHEST_PROTOCOL)
        except Exception as exc:
            sealed = _failure(exc)
        self._done.append((number, sealed))
        self._some.set()


class Mailbox:
    """The caller's end for one actor. One event loop, no threads."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._out: list[Letter] = []
        self._collector: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is asked, and no call waits for answers any more."""
        return not self._open and (self._collector is None or self._collector.done())

    async def ask(self, question: Any) -> Any:
        """The actor's answer.

        Raises:
            Exception: what the work at the question raised, without Ray's wrapper; or what Ray raises of a lost actor.
        """
        loop, number = asyncio.get_running_loop(), next(_NUMBERS)
        answer = self._open[number] = loop.create_future()
        if not self._out:
            loop.call_soon(self.flush)
        self._out.append((number, pickle.dumps(question, pickle.HIGHEST_PROTOCOL)))
        try:
            return await answer
        finally:
            self._open.pop(number, None)

    def flush(self) -> None:
        """Send what was asked so far: a call made after this reaches the actor after it."""
        letters, self._out = self._out, []
        if letters:
            self._task(self._send(self._actor.take.remote(letters)))
            if self._collector is None or self._collector.done():
                self._collector = self._task(self._collect())

    async def _send(self, taken: Awaitable[None]) -> None:
        try:
            await taken
        except Exception as exc:
            self._lost(exc)

    async def _collect(self) -> None:
        try:
            while self._open:
                for number, sealed in await self._actor.collect.remote():
                    answer = self._open.pop(number, None)
                    if answer is not None and not answer.done():  # else its caller has gone away
                        _settle(answer, sealed)
        except Exception as exc:
            self._lost(exc)

    def _lost(self, exc: BaseException) -> None:
        while self._open:
            _, answer = self._open.popitem()
            if not answer.done():
                answer.set_exception(exc)

    def _task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Mail:
    """The mailboxes of a fleet's actors."""

    def __init__(self) -> None:
        self._boxes: dict[Any, Mailbox] = {}

    def to(self, actor: Any) -> Mailbox:
        """The mailbox of an actor; it is made at the first call."""
        if actor not in self._boxes:
            self._boxes = {other: box for other, box in self._boxes.items() if not box.idle}  # some are gone for good
            self._boxes[actor] = Mailbox(actor)
        return self._boxes[actor]


def _settle(answer: asyncio.Future[Any], sealed: bytes) -> None:
    try:
        well, value = pickle.loads(sealed)
    except Exception as exc:
        well, value = False, exc
    if well:
        answer.set_result(value)
    else:
        answer.set_exception(value)


def _failure(exc: Exception) -> bytes:
    """An exception with the actor's stack as a note; its text alone where it can't travel itself."""
    exc.add_note("".join(traceback.format_exception(exc)))
    try:
        sealed = pickle.dumps((False, exc), pickle.HIGHEST_PROTOCOL)
        pickle.loads(sealed)
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(exc).__name__}: {exc}")), pickle.HIGHEST_PROTOCOL)
    return sealed
