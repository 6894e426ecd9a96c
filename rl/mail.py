"""Many small calls to an actor in few remote ones.

A remote call costs caller and actor a third of a millisecond of processor time or more, each, whatever it carries. Here
one call at a time takes questions to the actor, all that have come up since the one before, and one at a time waits
there and brings back whatever has been answered: the more there is to do, the more each call carries.

    Mailbox, at the caller                     Desk, in the actor
    ask(question) -------- take([...]) ------> work(question), each in a task of its own
    its answer <---------- collect() --------- all that are done

Work begins in the order of asking, so that a question about the work sees all that was asked before it.

What an answer says to the caller is pickled by itself, so that one that can't be is the failure of its own question
and no other's. What it holds for others, its parts, comes as objects that the caller owns and does not read: all first
parts of a call are one object, all second parts another, and a `Part` says where in it one is. Parts that Ray can't
store fail whatever was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import pickle
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

_NUMBERS = itertools.count()
_ROWS = 64
"""Answers that one call brings at most: a column lives as long as any of its rows is needed."""
_COLUMNS = 16
"""Columns that stay in hand: the rows of one are asked for within a short time."""


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
        self._recent: dict[Any, asyncio.Future[Any]] = {}

    async def fetch(self, part: Part) -> Any:
        """See `Part.fetched`."""
        column = self._recent.pop(part.column, None) or asyncio.ensure_future(part.column)
        self._recent[part.column] = column
        if len(self._recent) > _COLUMNS:
            del self._recent[next(iter(self._recent))]
        try:
            return (await asyncio.shield(column))[part.row]
        except Exception:
            if self._recent.get(part.column) is column:
                del self._recent[part.column]
            raise


class Desk:
    """The actor's end. The actor passes its methods `take` and `collect` on to this. One event loop, no threads.

    Args:
        work: answers one question; with `parts` it returns so many after what the caller is told.
    """

    def __init__(self, work: Callable[[Any], Awaitable[Any]], parts: int = 0) -> None:
        self._work, self._parts = work, parts
        self._done: deque[tuple[int, bytes, Sequence[Any]]] = deque()
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, questions: Sequence[tuple[int, Any]]) -> None:
        """Begin to work at these, each with its number, in their order."""
        for number, question in questions:
            task = asyncio.create_task(self._answer(number, question))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def collect(self) -> Any:
        """What was answered since the last call, once there is something: (number, pickle) each; and a list a part."""
        await self._ready.wait()
        done = [self._done.popleft() for _ in range(min(_ROWS, len(self._done)))]
        if not self._done:
            self._ready.clear()
        letters = [(number, sealed) for number, sealed, _ in done]
        if not self._parts:
            return letters
        return letters, *([parts[i] if parts else None for *_, parts in done] for i in range(self._parts))

    async def _answer(self, number: int, question: Any) -> None:
        parts: Sequence[Any] = ()
        try:
            answer = await self._work(question)
            if self._parts:
                answer, *parts = answer
            sealed = pickle.dumps((True, answer), pickle.HIGHEST_PROTOCOL)
        except BaseException as exc:  # a cancelled task, a panic of Rust code: nobody else would answer the question
            sealed, parts = _failure(exc), ()
        self._done.append((number, sealed, parts))
        self._ready.set()


class Mailbox:
    """The caller's end for one actor, and the only one that asks it: answers go to whoever collects. One event loop."""

    def __init__(self, actor: Any, parts: int = 0) -> None:
        self._actor, self._parts = actor, parts
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._out: list[tuple[int, Any]] = []
        self._collector: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None

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
            loop.call_soon(self._flush)
        self._out.append((number, question))
        try:
            return await answer
        finally:
            self._open.pop(number, None)

    def _flush(self) -> None:
        if self._sending is not None:
            return  # `_sent` comes back
        letters, self._out = [letter for letter in self._out if self._waits(letter[0])], []
        if not letters:
            return
        numbers = [number for number, _ in letters]
        try:
            taken = self._actor.take.remote(letters)
        except Exception as exc:  # a question that can't be sent
            return self._fail(numbers, exc)
        self._sending = asyncio.create_task(self._sent(taken, numbers))
        if self._collector is None or self._collector.done():
            self._collector = asyncio.create_task(self._collect())

    def _waits(self, number: int) -> bool:
        answer = self._open.get(number)
        return answer is not None and not answer.done()  # else its caller has gone away

    async def _sent(self, taken: Awaitable[None], numbers: Sequence[int]) -> None:
        try:
            await taken
        except Exception as exc:
            self._fail(numbers, exc)
        self._sending = None
        self._flush()

    async def _collect(self) -> None:
        try:
            while self._open:
                letters, *columns = self._call()
                for row, (number, sealed) in enumerate(await letters):
                    if self._waits(number):
                        _settle(self._open.pop(number), sealed, [Part(column, row) for column in columns])
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
            if self._waits(number):
                self._open.pop(number).set_exception(exc)


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


def _failure(exc: BaseException) -> bytes:
    """The exception, if it can travel, and its text and stack apart from it.

    The exception itself stays as it is: several questions may have failed by the same one.
    """
    text, stack = f"{type(exc).__name__}: {exc}", "".join(traceback.format_exception(exc))
    try:
        itself = pickle.dumps(exc if isinstance(exc, Exception) else None, pickle.HIGHEST_PROTOCOL)
    except Exception:
        itself = pickle.dumps(None)
    return pickle.dumps((False, (itself, text, stack)), pickle.HIGHEST_PROTOCOL)


def _settle(answer: asyncio.Future[Any], sealed: bytes, parts: Sequence[Part]) -> None:
    try:
        well, value = pickle.loads(sealed)
    except Exception as exc:
        return answer.set_exception(exc)
    if well:
        return answer.set_result((value, *parts) if parts else value)
    itself, text, stack = value
    failure = None
    with contextlib.suppress(Exception):  # it can't be made again here: the text stands for it
        failure = pickle.loads(itself)
    failure = failure or RuntimeError(text)
    failure.add_note(stack)
    answer.set_exception(failure)
