"""Members that hang before they serve: while they start, say their load, or are refitted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rl.errors import EngineDeadError
from rl.rollout.engine import EngineLoad
from tests.unit.fleet.crew import Crew, Worker, states, until

pytestmark = pytest.mark.timeout(20)


def hanging(number: int, how: Any) -> Any:
    """Does `how` to the worker with this number, and nothing to others."""
    return lambda worker: how(worker) if worker.number == number else None


async def _replaced_again(team: Crew) -> None:
    """The second worker was killed before it got a call, and the third one serves."""
    call = team.call()
    await until(lambda: len(team.made) == 3 and team.made[2].calls)
    assert team.made[1].dead.done() and not team.made[1].calls
    team.made[2].calls[0].set_result("done")
    assert await call == "done"
    assert team.fleet.replaced == 1


async def test_one_that_hangs_in_its_start_is_replaced(crew, caplog):
    team = await crew(1, start_s=0.05)
    team.prepare = hanging(1, lambda worker: worker.starts.clear())
    team.made[0].die()
    await _replaced_again(team)
    assert "w0 was not ready 0.05 s after it had a process" in caplog.text


async def test_one_that_waits_for_a_node_is_waited_for(crew):
    """Its time to start begins when Ray has made its process."""
    team = await crew(1, start_s=0.05)

    def unplaced(worker: Worker) -> None:
        worker.starts.clear()
        worker.placed = False

    team.prepare = unplaced
    asked: list[Worker] = []
    team.fleet._placed = lambda worker: asked.append(worker) or worker.placed
    team.fleet.add("w1")
    await until(lambda: len(asked) == 20)  # a look every 0.01 s at the least: 0.2 s or more
    assert states(team)["w1"] == "starting" and len(team.made) == 2
    team.prepare = lambda worker: None
    team.made[1].placed = True
    await until(lambda: states(team)["w1"] == "serving")
    assert len(team.made) == 3 and team.made[1].dead.done()


async def test_one_that_goes_silent_while_it_is_refitted_is_replaced(crew, caplog):
    team = await crew(1, hang_s=0.05)

    def stop(worker: Worker) -> None:
        worker.fits.clear()
        worker.hangs = True

    team.prepare = hanging(1, stop)
    team.made[0].die()
    await _replaced_again(team)
    assert "w0 did not answer for 0.05 s" in caplog.text


async def test_one_that_answers_and_is_never_refitted_is_replaced(crew, caplog):
    team = await crew(1, start_s=0.05)
    team.prepare = hanging(1, lambda worker: worker.fits.clear())
    team.made[0].die()
    await _replaced_again(team)
    assert "w0 answers, but did not take the state of the run within 0.05 s" in caplog.text


async def test_one_that_goes_silent_before_it_says_its_load_is_replaced(crew, caplog):
    team = await crew(1, hang_s=0.05)
    team.prepare = hanging(1, lambda worker: setattr(worker, "hangs", True))

    async def room(worker: Worker) -> EngineLoad:
        if worker.hangs:
            await asyncio.Event().wait()
        return EngineLoad(slots=2)

    team.fleet._room = room
    team.made[0].die()
    await _replaced_again(team)
    assert "w0 did not answer for 0.05 s" in caplog.text


async def test_hangs_in_starts_count_as_deaths(crew):
    team = await crew(1, start_s=0.02, restarts=2)
    call = team.call()
    await until(lambda: team.made[0].calls)
    team.prepare = lambda worker: worker.starts.clear()
    team.made[0].die()
    with pytest.raises(EngineDeadError, match=r"no worker is left: w0 was lost 3 times in a row; the last: w0 was not"):
        await call
    assert len(team.made) == 3


async def test_a_slow_refit_is_no_hang(crew):
    """It answers pings; what it sees last is the newest when it serves."""
    team = await crew(1, hang_s=0.05)
    team.prepare = lambda worker: worker.fits.clear()
    pings: list[Worker] = []
    ping = Worker._ping

    def watched(worker: Worker) -> Any:
        pings.append(worker)
        return ping(worker)

    team.made[0].die()
    await until(lambda: team.refitted)
    team.made[1].ping.remote = lambda: watched(team.made[1])
    await until(lambda: len(pings) == 10)  # one every 0.01 s at the least: longer than `hang_s`
    assert len(team.made) == 2
    team.made[1].fits.set()
    await until(lambda: states(team) == {"w0": "serving"})
    assert len(team.made) == 2
