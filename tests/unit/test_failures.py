"""Which of many failures is the cause, and what of it is worth saying."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.exceptions import RayActorError

from rl.errors import ActorLostError, EngineDeadError
from rl.failures import describe_failure, of_ranks


async def fails(exc: BaseException) -> Any:
    raise exc


async def test_the_rank_that_died_is_named_not_the_peer_that_lost_its_connection():
    async def dies_later() -> Any:
        await asyncio.sleep(0)
        raise RayActorError(error_msg="The actor died.\n\tpid: 7\nThe process was killed.")

    with pytest.raises(ActorLostError, match=r"^learner rank 1 died \(The process was killed\.\)$"):
        await of_ranks([fails(RuntimeError("connection closed by peer")), dies_later()])


async def test_a_rank_that_fails_by_itself_is_its_own_cause():
    with pytest.raises(RuntimeError, match="out of memory"):
        await of_ranks([fails(RuntimeError("out of memory")), asyncio.sleep(0)])
    assert await of_ranks([asyncio.sleep(0, "a"), asyncio.sleep(0, "b")]) == ["a", "b"]


async def test_a_rank_that_hangs_is_named():
    with pytest.raises(ActorLostError, match=r"^learner rank 1 has not answered for 0\.01 s.*raise stall_timeout_s"):
        await of_ranks([asyncio.sleep(0), asyncio.Event().wait()], limit_s=0.01)


async def test_a_dead_ray_is_told_from_a_dead_actor():
    # As Ray words it for every actor of a driver whose raylet was killed.
    text = "The actor is dead because its owner has died. Worker exit detail: Owner's node has crashed."
    with pytest.raises(ActorLostError, match=r"^Ray on this machine is gone.*node has crashed"):
        await of_ranks([fails(RayActorError(error_msg=f"The actor died.\n{text}"))])
    assert isinstance(describe_failure(RayActorError(error_msg="killed")), EngineDeadError)
