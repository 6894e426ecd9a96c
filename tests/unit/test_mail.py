"""Questions and answers through `rl.mail`, over an actor in this process whose calls are counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rl.errors import EngineError
from rl.mail import Columns, Desk, Mail, Mailbox, Part


class Actor:
    """An actor in the manner of Ray, `actor.method.remote(...)`; once it is dead every call raises."""

    def __init__(self, work: Callable[[Any], Awaitable[Any]], parts: int = 0) -> None:
        self.desk, self.calls, self.order = Desk(work, parts), Counter[str](), list[str]()
        self.sent: list[Any] = []
        self.dead: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.take, self.collect = _Method(self, "take", self._take), _Method(self, "collect", self.desk.collect)
        self.other = _Method(self, "other", self._other)

    async def _take(self, letters: list[tuple[int, Any]]) -> None:
        self.sent += [question for _, question in letters]
        await self.desk.take(letters)

    async def _other(self) -> None: ...

    def die(self) -> None:
        self.dead.set_exception(ConnectionError("the actor died"))
        self.dead.exception()  # seen


class _Method:
    def __init__(self, actor: Actor, name: str, call: Callable[..., Awaitable[Any]]) -> None:
        self._actor, self._name, self._call = actor, name, call

    def options(self, num_returns: int) -> _Columns:
        return _Columns(self, num_returns)

    def remote(self, *args: Any) -> asyncio.Future[Any]:
        self._actor.calls[self._name] += 1
        self._actor.order.append(self._name)
        return asyncio.ensure_future(self._run(*args))

    async def _run(self, *args: Any) -> Any:
        call = asyncio.ensure_future(self._call(*args))
        await asyncio.wait({call, self._actor.dead}, return_when=asyncio.FIRST_COMPLETED)
        if self._actor.dead.done():
            call.cancel()
            raise ConnectionError("the actor died")
        return await call


class _Columns:
    """A method of several results: a future for each, which fails if the method does."""

    def __init__(self, method: _Method, count: int) -> None:
        self._method, self._count = method, count

    def remote(self) -> list[asyncio.Future[Any]]:
        whole = self._method.remote()
        return [asyncio.ensure_future(self._one(whole, i)) for i in range(self._count)]

    async def _one(self, whole: asyncio.Future[Any], i: int) -> Any:
        return (await whole)[i]


async def double(number: int) -> int:
    return 2 * number


async def settled(box: Mailbox) -> None:
    """Until no call of the box is under way."""
    while not box.idle:
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_goes_in_one_call() -> None:
    actor = Actor(double)
    box = Mailbox(actor)
    assert await asyncio.gather(*map(box.ask, range(50))) == [2 * i for i in range(50)]
    assert actor.calls == {"take": 1, "collect": 1}
    assert await box.ask(7) == 14
    assert actor.calls == {"take": 2, "collect": 2}
    await settled(box)


async def test_a_slow_answer_holds_no_other() -> None:
    released = asyncio.Event()

    async def work(name: str) -> str:
        if name == "slow":
            await released.wait()
        return name

    box = Mailbox(Actor(work))
    slow = asyncio.ensure_future(box.ask("slow"))
    assert [await box.ask(name) for name in ("a", "b")] == ["a", "b"]
    assert not slow.done() and not box.idle
    released.set()
    assert await slow == "slow"


async def test_work_begins_in_the_order_of_asking() -> None:
    begun: list[int] = []

    async def work(number: int) -> None:
        begun.append(number)

    box = Mailbox(Actor(work))
    await asyncio.gather(*map(box.ask, (3, 1, 2)))
    assert begun == [3, 1, 2]


async def test_what_comes_up_while_a_call_is_under_way_goes_in_the_next() -> None:
    actor = Actor(double)
    box, entered, released = Mailbox(actor), asyncio.Event(), asyncio.Event()
    take = actor.desk.take

    async def held(letters: list[tuple[int, Any]]) -> None:
        entered.set()
        await released.wait()
        await take(letters)

    actor.take = _Method(actor, "take", held)
    asked = [asyncio.ensure_future(box.ask(0))]
    await entered.wait()
    for number in (1, 2):
        asked.append(asyncio.ensure_future(box.ask(number)))
        await asyncio.sleep(0)
    assert actor.calls["take"] == 1
    released.set()
    assert await asyncio.gather(*asked) == [0, 2, 4]
    assert actor.calls["take"] == 2


async def test_what_nobody_waits_for_any_more_is_not_sent() -> None:
    actor = Actor(double)
    box = Mailbox(actor)
    gone = asyncio.ensure_future(box.ask(1))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert not actor.calls and box.idle
    assert await box.ask(2) == 4
    assert actor.sent == [2]


async def test_a_call_brings_sixty_four_answers_at_most() -> None:
    actor = Actor(double)
    box = Mailbox(actor)
    assert await asyncio.gather(*map(box.ask, range(130))) == [2 * i for i in range(130)]
    await settled(box)
    assert actor.calls == {"take": 1, "collect": 3}


async def test_a_failure_is_that_of_its_own_question() -> None:
    async def work(number: int) -> Any:
        if number == 1:
            raise EngineError("no room")
        return (lambda: 0) if number == 2 else number  # a function without a name can't be pickled

    box = Mailbox(Actor(work))
    good, raised, unpicklable, last = await asyncio.gather(*map(box.ask, range(4)), return_exceptions=True)
    assert (good, last) == (0, 3)
    assert isinstance(raised, EngineError) and str(raised) == "no room"
    (note,) = raised.__notes__
    assert "in work" in note, "the actor's stack"
    assert isinstance(unpicklable, Exception) and "pickle" in str(unpicklable)


class Stubborn(Exception):
    """One that can be pickled and not be made again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


async def test_an_exception_that_cannot_travel_is_told_by_its_text() -> None:
    async def work(number: int) -> Any:
        raise Stubborn("a", "b")

    with pytest.raises(RuntimeError, match=r"^Stubborn: a b"):
        await Mailbox(Actor(work)).ask(0)


class Panic(BaseException):
    """As pyo3 raises where Rust code panics."""


async def test_nothing_that_work_raises_leaves_a_question_open() -> None:
    async def work(number: int) -> None:
        raise asyncio.CancelledError if number else Panic("index out of bounds")

    box = Mailbox(Actor(work))
    panic, cancelled = await asyncio.gather(*map(box.ask, range(2)), return_exceptions=True)
    assert isinstance(panic, RuntimeError) and str(panic) == "Panic: index out of bounds"
    assert isinstance(cancelled, RuntimeError) and str(cancelled).startswith("CancelledError")


async def test_one_failure_of_many_questions_is_told_to_each_once() -> None:
    """As of the rows of a lost column: notes on the one exception would each repeat all those before."""
    lost = ConnectionError("gone with its node")

    async def work(_: int) -> None:
        raise lost

    failures = await asyncio.gather(*map(Mailbox(Actor(work)).ask, range(40)), return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, ConnectionError) and len(failure.__notes__) == 1
        assert len(failure.__notes__[0]) < 20_000


async def test_a_lost_actor_fails_all_that_is_open_and_what_is_asked_later() -> None:
    begun = asyncio.Event()

    async def work(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    actor = Actor(work)
    box = Mailbox(actor)
    open_ones = [asyncio.ensure_future(box.ask(i)) for i in range(3)]
    await begun.wait()
    actor.die()
    for failure in await asyncio.gather(*open_ones, return_exceptions=True):
        assert isinstance(failure, ConnectionError)
    with pytest.raises(ConnectionError, match="the actor died"):
        await box.ask(3)
    await settled(box)


async def test_an_answer_whose_caller_has_gone_is_dropped() -> None:
    released = asyncio.Event()

    async def work(number: int) -> int:
        if number == 0:
            await released.wait()
        return number

    actor = Actor(work)
    box = Mailbox(actor)
    gone = asyncio.ensure_future(box.ask(0))
    assert await box.ask(1) == 1
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    released.set()
    assert [await box.ask(number) for number in (2, 3)] == [2, 3]


async def test_one_box_an_actor_and_none_for_those_that_are_idle() -> None:
    mail, first, second = Mail(), Actor(double), Actor(double)
    assert mail.to(first) is mail.to(first)
    kept = mail.to(first)
    asked = asyncio.ensure_future(kept.ask(1))
    await asyncio.sleep(0)
    mail.to(second)
    assert mail.to(first) is kept, "a question is open"
    await asked
    await settled(kept)
    mail.to(Actor(double))
    assert mail.to(first) is not kept


async def test_parts_come_as_rows_of_one_column_each() -> None:
    async def work(number: int) -> tuple[str, list[int], bytes]:
        if number == 1:
            raise EngineError("not this one")
        return f"number {number}", [number] * 3, bytes(number)

    box = Mailbox(Actor(work, parts=2), parts=2)
    first, failed, third = await asyncio.gather(*map(box.ask, range(3)), return_exceptions=True)
    assert isinstance(failed, EngineError)
    assert first[0] == "number 0" and third[0] == "number 2"
    assert third[1].column is first[1].column and (first[1].row, third[1].row) == (0, 2)
    assert [await part.fetched() for part in (*first[1:], *third[1:])] == [[0] * 3, b"", [2] * 3, b"\0\0"]


class Counted:
    """A reference to a list that counts how often it is looked up."""

    def __init__(self, values: list[Any] | Exception) -> None:
        self.values, self.looks = values, 0

    def __await__(self) -> Any:
        self.looks += 1
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.values, Exception):
            raise self.values
        return self.values


async def test_a_column_is_looked_up_once_however_many_ask_for_its_rows() -> None:
    columns, first = Columns(), Counted(["a", "b", "c"])
    assert await asyncio.gather(*(columns.fetch(Part(first, row)) for row in (2, 0, 1))) == ["c", "a", "b"]
    assert first.looks == 1
    others = [Counted([i]) for i in range(16)]
    for i, other in enumerate(others):
        assert await columns.fetch(Part(other, 0)) == i
    assert await columns.fetch(Part(first, 1)) == "b" and first.looks == 2, "sixteen are kept"
    assert await columns.fetch(Part(others[-1], 0)) == 15 and others[-1].looks == 1


async def test_a_lost_column_is_an_error_for_each_of_its_rows_and_is_not_kept() -> None:
    columns, lost = Columns(), Counted(ConnectionError("gone with its node"))
    rows = (columns.fetch(Part(lost, row)) for row in range(2))
    for failure in await asyncio.gather(*rows, return_exceptions=True):
        assert isinstance(failure, ConnectionError)
    assert lost.looks == 1
    lost.values = ["back"]
    assert await columns.fetch(Part(lost, 0)) == "back"
