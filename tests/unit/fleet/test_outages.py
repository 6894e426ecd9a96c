"""Fleets of which nobody serves, and whose members wait for a process: how long, and what callers are told."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from rl.errors import EngineDeadError, StarvationError
from tests.unit.fleet.crew import Crew, Worker, states, until

pytestmark = pytest.mark.timeout(20)


def without_room(team: Crew) -> list[Worker]:
    """New workers get no process from now on; returns those that were looked at, once for each look."""

    def unplaced(worker: Worker) -> None:
        worker.starts.clear()
        worker.placed = False

    looks: list[Worker] = []
    team.prepare = unplaced
    team.fleet._placed = lambda worker: looks.append(worker) or worker.placed
    return looks


async def test_when_nobody_serves_and_there_is_no_node_callers_are_told(crew):
    team = await crew(1, start_s=0.05)
    without_room(team)
    team.made[0].die()
    await until(lambda: states(team) == {"w0": "down"})

    def work(worker: Worker) -> Any:
        return worker.work.remote()

    calls = [team.fleet.run(work), team.fleet.run(work, queued=True), team.fleet.each(work)]
    said = re.compile(
        r"no worker serves, and none has had a process for 0\.05 s: w0 \(down\) has not served for \d+ s\. No process "
        r"yet for w0: the cluster has no room or no node, see `ray status`\. Add a node, or raise faults\.start_s of "
    )
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, StarvationError) and said.match(str(error))
    with pytest.raises(StarvationError, match="no worker serves"):
        await team.call()
    assert len(team.made) == 2  # it was not taken for lost


async def test_while_one_serves_others_wait_without_a_limit(crew):
    """And with the last one the wait begins for all."""
    team = await crew(2, start_s=0.05)
    looks = without_room(team)
    team.made[0].die()
    await until(lambda: len(looks) == 20)  # a look every 0.01 s at the least: 0.2 s or more
    call = team.call()
    await until(lambda: team.made[1].calls)
    team.made[1].calls[0].set_result("done")
    assert await call == "done" and states(team) == {"w0": "down", "w1": "serving"}
    looks.clear()
    team.made[1].die()
    with pytest.raises(StarvationError, match=r"w0 \(down\) .* w1 \(down\) .* No process yet for w0, w1: "):
        await team.call()
    assert team.made[3] in looks


async def test_one_that_is_given_up_is_no_hope(crew):
    team = await crew(2, start_s=0.05, restarts=1)
    without_room(team)
    team.made[0].die()
    await until(lambda: states(team)["w0"] == "down")
    team.prepare = lambda worker: worker.die(EngineDeadError("out of memory"))
    team.made[1].die()
    with pytest.raises(StarvationError, match=r"w0 \(down\) .* w1 \(given up\) .* No process yet for w0: "):
        await team.call()


async def test_a_node_that_comes_in_time_ends_the_wait(crew):
    team = await crew(1, start_s=15)
    looks = without_room(team)
    team.made[0].die()
    call = team.call()
    await until(lambda: len(looks) == 3)
    team.made[1].placed = True
    team.made[1].starts.set()
    await until(lambda: team.made[1].calls)
    team.made[1].calls[0].set_result("done")
    assert await call == "done" and states(team) == {"w0": "serving"}
