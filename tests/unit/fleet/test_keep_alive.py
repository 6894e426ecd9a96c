"""An actor that Ray restarts when it dies: a hang is made a death."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from rl.config.faults import FaultConfig
from rl.liveness import keep_alive
from tests.unit.fleet.crew import Method, Worker, until

pytestmark = pytest.mark.timeout(20)


@contextlib.asynccontextmanager
async def kept(worker: Worker, kill: Callable[[Any], None], **limits: float) -> AsyncIterator[asyncio.Task[None]]:
    config = FaultConfig.model_validate({"ping_every_s": 0.01, **limits})
    task = asyncio.create_task(keep_alive("judges", worker, config, kill))
    yield task
    assert not task.done()
    task.cancel()


async def test_one_that_hangs_is_killed_and_watched_on(caplog: pytest.LogCaptureFixture) -> None:
    worker, killed = Worker("judges", 0), list[Worker]()

    def kill(actor: Worker) -> None:
        killed.append(actor)
        actor.hangs = False  # as Ray starts it anew

    async with kept(worker, kill, hang_s=0.05):
        for count in (1, 2):
            worker.hangs = True
            await until(lambda count=count: len(killed) == count)
    assert killed == [worker, worker] and "judges did not answer for 0.05 s" in caplog.text


async def test_one_that_hangs_in_its_start_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    worker, killed = Worker("judges", 0), list[Worker]()
    worker.starts.clear()
    async with kept(worker, killed.append, start_s=0.05):
        await until(lambda: killed)
    assert "judges was not ready 0.05 s after" in caplog.text


async def test_one_that_died_is_left_to_ray() -> None:
    worker, killed, asked = Worker("judges", 0), list[Worker](), list[int]()

    async def ping() -> None:
        asked.append(len(asked))
        if len(asked) == 1:
            raise ActorUnavailableError("it starts anew", None)

    worker.ping = Method(ping)
    async with kept(worker, killed.append):
        await until(lambda: len(asked) == 3)
    assert killed == []
