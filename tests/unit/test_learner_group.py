"""The watch over the learner's ranks, with ranks that answer pings as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from rl.config.faults import PingConfig
from rl.errors import ActorLostError
from rl.learner_group import LearnerGroup


async def at_once() -> None: ...


async def never() -> None:
    await asyncio.Event().wait()


async def dead() -> None:
    raise ray.exceptions.RayActorError(error_msg="The actor died.\nThe process was killed.")


def group_of(*pings: Callable[[], Coroutine[Any, Any, None]]) -> LearnerGroup:
    group = object.__new__(LearnerGroup)  # its constructor makes actors
    group.ranks = [
        SimpleNamespace(ping=SimpleNamespace(options=lambda ping=ping, **_: SimpleNamespace(remote=ping)))
        for ping in pings
    ]
    group._faults = PingConfig(ping_every_s=0.001, hang_s=0.05)
    return group


@pytest.mark.parametrize(
    ("ping", "said"),
    [
        (never, r"learner rank 1 did not answer for 0\.05 s \(learner\.faults\.hang_s\)"),
        (dead, r"learner rank 1 died \(.*killed"),
    ],
)
async def test_a_rank_that_is_lost_ends_the_block(ping, said):
    ended = []
    with pytest.raises(ActorLostError, match=said):
        async with group_of(at_once, ping).watched():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(await asyncio.sleep(0, "closed"))  # the block may still await what it closes
    assert ended == ["closed"]
    assert asyncio.current_task().cancelling() == 0


async def test_ranks_that_answer_leave_the_block_alone():
    answered = asyncio.Event()

    async def ping() -> None:
        answered.set()

    async with group_of(ping).watched():
        await answered.wait()
    with pytest.raises(ValueError, match="the block's own"):
        async with group_of(at_once).watched():
            raise ValueError("the block's own")


async def test_a_rank_that_cannot_be_reached_for_a_moment_is_not_lost():
    asked, answered = [], asyncio.Event()

    async def ping() -> None:
        asked.append(len(asked))
        if len(asked) <= 2:
            raise ray.exceptions.ActorUnavailableError("the network failed for a moment", None)
        answered.set()

    group = group_of(ping)
    group._faults = PingConfig(ping_every_s=0.001, hang_s=60.0)
    async with group.watched():
        await answered.wait()


async def test_a_rank_that_stays_out_of_reach_is_lost():
    async def ping() -> None:
        raise ray.exceptions.ActorUnavailableError("no route", None)

    with pytest.raises(ActorLostError, match=r"learner rank 0 .*no route"):
        async with group_of(ping).watched():
            await asyncio.Event().wait()


async def test_a_cancellation_from_outside_stays_one():
    begun = asyncio.Event()

    async def block() -> None:
        async with group_of(at_once).watched():
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
