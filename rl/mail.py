"""Many small calls to an actor in few remote ones.

A remote call costs caller and actor a third of a millisecond of processor time or more, each, whatever it carries. Here
the questions of one turn of the caller's event loop go in one call, and one call at a time waits at the actor and
brings back whatever has been answered: the more there is to do, the more each call carries.

    Mailbox, at the caller                     Desk, in the actor
    ask(question) -------- take([...]) ------> work(question), each in a task of its own
    its answer <---------- collect() --------- all that are done

What an answer says to the caller is pickled by itself, so that one that can't be is the failure of its own question
and no other's. What it holds for others, its parts, comes as objects that the caller owns and does not read: all first
parts of a call are one object, all second parts another, and a `Part` says where in it one is.
"""

from __future__ import annotations

import asyncio
import itertools
import pickle
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBERS = itertools.count()
_COLUMNS = 16
"""Columns that stay in hand: as many as answers of one actor come in before the first one's parts are all asked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an answer."""

    column: Any
    """Reference to a list with the parts of many answers."""
    row: int

    async def fetched(self) -> Any:
        """
        Raises:
            ray.exceptions.ObjectLostError: it is gone with the node that held it.
        """
        return (await self.column)[self.row]


class Columns:
    """Fetches parts, of the columns that were asked for last without another look at the object."""

    def __init__(self) -> None:
        self._lately: dict[Any, asyncio.Future[Any]] = {}

    async def fetch(self, part: Part) -> Any:
        """See `Part.fetched`."""
        column = self._lately.pop(part.column, None) or asyncio.ensure_future(_awaited(part.column))
        self._lately[part.column] = column
        if len(self._lately) > _COLUMNS:
            del self._lately[next(iter(self._lately))]
        return (await asyncio.shield(column))[part.row]


async def _awaited(reference: Awaitable[Any]) -> Any:
    return await reference


class Desk:
    """The actor's end. The actor passes its methods `take` and `collect` on to this. One event loop, no threads.

    Args:
        work: answers one question; with `parts` it returns so many after what the caller is told.
    """

    def __init__(self, work: Callable[[Any], Awaitable[Any]], parts: int = 0) -> None:
        self._work, self._parts = work, parts
        self._done: list[tuple[int, bytes, tuple[Any, ...]]] = []
        self._some = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, questions: Sequence[tuple[int, Any]]) -> None:
        """Begin to work at these, each with its number, in their order."""
        for number, question in questions:
            task = asyncio.create_task(self._answer(number, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> Any:
        """What was answered since the last call, once there is something: (number, pickle) each; and a list a part."""
        await self._some.wait()
        self._some.clear()
        done, self._done = self._done, []
        letters = [(number, sealed) for number, sealed, _ in done]
        if not self._parts:
            return letters
        return letters, *([parts[i] if parts else None for *_, parts in done] for i in range(self._parts))

    async def _answer(self, number: int, question: Any) -> None:
        parts: tuple[Any, ...] = ()
        try:
            answer = await self._work(question)
            if self._parts:
                answer, *parts = answer
            sealed = pickle.dumps((True, answer), pickle.HIGHEST_PROTOCOL)
        except Exception as exc:
            sealed, parts = _failure(exc), ()
        self._done.append((number, sealed, parts))
        self._some.set()


class Mailbox:
    """The caller's end for one actor. One event loop, no threads."""

    def __init__(self, actor: Any, parts: int = 0) -> None:
        self._actor, self._parts = actor, parts
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._out: list[tuple[int, Any]] = []
        self._collector: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def idle(self) -> bool:
        """Whether nothing is asked, and no call waits for answers any more."""
        return not self._open and (self._collector is None or self._collector.done())

    async def ask(self, question: Any) -> Any:
        """The actor's answer; of a desk with parts what it says, and each `Part`.

        Raises:
            Exception: what the work at the question raised, without Ray's wrapper; or what Ray raises of a lost actor.
        """
        loop, number = asyncio.get_running_loop(), next(_NUMBERS)
        answer = self._open[number] = loop.create_future()
        if not self._out:
            loop.call_soon(self.flush)
        self._out.append((number, question))
        try:
            return await answer
        finally:
            self._open.pop(number, None)

    def flush(self) -> None:
        """Send what was asked so far: a call made after this reaches the actor after it."""
        letters, self._out = self._out, []
        if not letters:
            return
        try:
            taken = self._actor.take.remote(letters)
        except Exception as exc:  # a question that can't be sent
            return self._fail([number for number, _ in letters], exc)
        self._task(self._sent(taken, [number for number, _ in letters]))
        if self._collector is None or self._collector.done():
            self._collector = self._task(self._collect())

    async def _sent(self, taken: Awaitable[None], numbers: Sequence[int]) -> None:
        try:
            await taken
        except Exception as exc:
            self._fail(numbers, exc)

    async def _collect(self) -> None:
        try:
            while self._open:
                letters, *columns = self._call()
                for row, (number, sealed) in enumerate(await letters):
                    answer = self._open.pop(number, None)
                    if answer is not None and not answer.done():  # else its caller has gone away
                        _settle(answer, sealed, [Part(column, row) for column in columns])
        except Exception as exc:
            self._fail(list(self._open), exc)

    def _call(self) -> Sequence[Any]:
        """References to what a call of `collect` returns."""
        if not self._parts:
            return (self._actor.collect.remote(),)
        found: Sequence[Any] = self._actor.collect.options(num_returns=1 + self._parts).remote()
        return found

    def _fail(self, numbers: Sequence[int], exc: BaseException) -> None:
        for number in numbers:
            answer = self._open.pop(number, None)
            if answer is not None and not answer.done():
                answer.set_exception(exc)

    def _task(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Mail:
    """The mailboxes of a fleet's actors, whose desks have `parts`."""

    def __init__(self, parts: int = 0) -> None:
        self._parts = parts
        self._boxes: dict[Any, Mailbox] = {}

    def to(self, actor: Any) -> Mailbox:
        """The mailbox of an actor; it is made at the first call."""
        if actor not in self._boxes:
            self._boxes = {other: box for other, box in self._boxes.items() if not box.idle}  # some are gone for good
            self._boxes[actor] = Mailbox(actor, self._parts)
        return self._boxes[actor]


def _settle(answer: asyncio.Future[Any], sealed: bytes, parts: Sequence[Part]) -> None:
    try:
        well, value = pickle.loads(sealed)
    except Exception as exc:
        well, value = False, exc
    if well:
        answer.set_result((value, *parts) if parts else value)
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
