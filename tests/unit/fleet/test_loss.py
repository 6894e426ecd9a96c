"""Replacing lost members: what callers see, what a new member gets first, when it is given up."""

from __future__ import annotations

import asyncio
import logging

import pytest
import ray

from rl.errors import DataError, EngineDeadError, EngineError, SyncError
from rl.failures import failed_prompt
from tests.unit.fleet.crew import Crew, Worker, until

pytestmark = pytest.mark.timeout(20)


async def test_calls_go_to_the_member_with_the_least_load(crew):
    team = await crew(2)
    calls = [team.call(weight) for weight in (5, 1, 1)]
    first, second = team.made
    await until(lambda: len(first.calls) + len(second.calls) == 3)
    assert (len(first.calls), len(second.calls)) == (1, 2)
    for worker in team.made:
        for answer in worker.calls:
            answer.set_result(worker.name)
    assert await asyncio.gather(*calls) == ["w0", "w1", "w1"]


async def test_a_call_of_a_dead_member_is_made_again_elsewhere(crew):
    team = await crew(2)
    call = team.call()
    first, second = team.made
    await until(lambda: first.calls)
    first.die()
    await until(lambda: second.calls)
    second.calls[0].set_result("done")
    assert await call == "done"
    assert team.fleet.reissued == 1


async def test_a_new_member_is_refitted_before_it_gets_calls(crew):
    team = await crew(1)
    call = team.call()
    await until(lambda: team.made[0].calls)
    seen: list[int] = []
    team.on_refit = lambda worker: seen.append(len(worker.calls))
    team.made[0].die()
    await until(lambda: len(team.made) == 2 and team.made[1].calls)
    team.made[1].calls[0].set_result("done")
    assert await call == "done"
    assert seen == [0] and team.refitted == [team.made[1]]
    assert team.fleet.actors == [team.made[1]]
    (outage,) = team.fleet.drain_changes()
    assert (outage.name, outage.cause) == ("w0", "w0 was killed") and outage.end >= outage.start
    assert team.fleet.drain_changes() == []


async def test_a_death_that_nobody_calls_is_noticed(crew):
    team = await crew(1)
    team.made[0].die()
    await until(lambda: team.fleet.replaced == 1)
    assert len(team.made) == 2


async def test_a_member_that_hangs_is_killed_and_its_call_made_again(crew):
    team = await crew(1, hang_s=0.05)
    call = team.call()
    await until(lambda: team.made[0].calls)
    team.made[0].hangs = True
    await until(lambda: len(team.made) == 2 and team.made[1].calls)
    assert team.made[0].dead.done()
    team.made[1].calls[0].set_result("done")
    assert await call == "done"
    assert "w0 did not answer for 0.05 s" in team.fleet.drain_changes()[0].cause


async def test_an_error_that_is_the_callers_own_is_raised_and_replaces_nobody(crew):
    team = await crew(1)
    for error in (DataError("bad row"), EngineError("prompt too long")):
        call = team.call()
        await until(lambda: team.made[0].calls)
        team.made[0].calls.pop().set_exception(error)
        with pytest.raises(type(error), match=str(error)):
            await call
    assert team.fleet.replaced == 0 and len(team.made) == 1


async def test_a_call_that_kills_whoever_gets_it_is_refused_in_the_end(crew):
    """Other calls get through in between, so no member is at fault."""
    team = await crew(1)
    poison = team.call()
    for i in range(5):
        await until(lambda i=i: len(team.made) > i and team.made[i].calls)
        other = team.call()
        await until(lambda i=i: len(team.made[i].calls) == 2)
        team.made[i].calls[1].set_result("fine")
        assert await other == "fine"
        team.made[i].die()
    with pytest.raises(
        EngineError, match="5 workers were lost with it, perhaps through it; the last: w0 was killed"
    ) as info:
        await poison
    assert not isinstance(info.value, EngineDeadError)  # one prompt fails, not the run


async def test_a_queued_call_that_kills_is_known_once_it_is_alone(crew):
    """With one worker, too, the others get through, the worker is not given up, and one prompt has failed."""
    team = await crew(1, restarts=3)

    async def poison(worker: Worker) -> None:
        await asyncio.sleep(0)  # what else it has in hand is there
        worker.die()
        await worker.ping.remote()

    async def good(worker: Worker) -> str:
        if team.fleet.members[0].load > 1:
            await worker.work.remote()  # not answered: it dies before
        return "done"

    calls = [team.fleet.run(call, queued=True) for call in (good, poison, good, good)]
    first, failed, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert [first, *others] == ["done"] * 3
    assert failed_prompt(failed) is failed and "3 workers were lost with it, the last with nothing else" in str(failed)
    await until(lambda: len(team.made) == 4)
    assert await team.fleet.run(good, queued=True) == "done" and team.fleet.members[0].deaths == 0


async def test_each_leaves_out_who_is_lost_and_asks_somebody(crew):
    team = await crew(2)
    answers = asyncio.ensure_future(team.fleet.each(lambda worker: worker.work.remote()))
    await until(lambda: all(worker.calls for worker in team.made))
    team.made[0].die()
    team.made[1].calls[0].set_result(7)
    assert await answers == {"w1": 7}

    await until(lambda: team.fleet.replaced == 1)
    answers = asyncio.ensure_future(team.fleet.each(lambda worker: worker.work.remote()))
    await until(lambda: len(team.made[1].calls) == 2 and team.made[2].calls)
    for worker in team.made[1:]:
        worker.die()
    await until(lambda: len(team.made) == 5 and (team.made[3].calls or team.made[4].calls))
    for worker in team.made[3:]:
        for answer in worker.calls:
            answer.set_result(8)
    assert set((await answers).values()) == {8}


async def test_one_call_at_a_time_goes_to_each_member_in_turn(crew):
    """So that one that died and is well again shows it, and is not given up when it dies once more."""
    team = await crew(3)
    for number in range(6):
        answer = asyncio.ensure_future(team.fleet.run(lambda worker: worker.work.remote()))
        worker = team.made[number % 3]
        await until(lambda worker=worker, number=number: len(worker.calls) == number // 3 + 1)
        worker.calls[-1].set_result(number)
        assert await answer == number


async def test_each_leaves_out_whose_answer_is_gone_with_its_node(crew):
    """Long lists of busy intervals are objects in the store of the member's node."""
    team = await crew(2)
    answers = asyncio.ensure_future(team.fleet.each(lambda worker: worker.work.remote(), bare=True))
    await until(lambda: all(worker.calls for worker in team.made))
    team.made[0].calls[0].set_exception(ray.exceptions.ObjectLostError("00" * 28, b"", ""))
    team.made[1].calls[0].set_result(7)
    assert await answers == {"w1": 7}
    await until(lambda: team.fleet.replaced == 1)


async def test_each_raises_that_what_it_handed_out_is_gone(crew):
    team = await crew(2)
    answers = asyncio.ensure_future(team.fleet.each(lambda worker: worker.work.remote()))
    await until(lambda: all(worker.calls for worker in team.made))
    for worker in team.made:
        worker.calls[0].set_exception(ray.exceptions.ObjectLostError("00" * 28, b"", ""))
    with pytest.raises(ray.exceptions.ObjectLostError):
        await answers
    assert team.fleet.replaced == 0


async def test_a_member_that_dies_over_and_over_is_given_up_and_the_others_go_on(crew, caplog):
    team = await crew(2, restarts=2)
    team.prepare = lambda worker: worker.die(EngineDeadError("no such file"))
    with caplog.at_level(logging.ERROR):
        team.made[0].die()
        await until(lambda: "given up" in caplog.text)
    assert "w0 was lost 3 times in a row; the last: no such file" in caplog.text
    call = team.call()
    await until(lambda: team.made[1].calls)
    team.made[1].calls[0].set_result("done")
    assert await call == "done"


async def test_with_nobody_left_calls_fail_with_the_last_cause(crew):
    team = await crew(1, restarts=1)
    call = team.call()
    await until(lambda: team.made[0].calls)
    team.prepare = lambda worker: worker.die(EngineDeadError("out of memory"))
    team.made[0].die()
    with pytest.raises(EngineDeadError, match="no worker is left: w0 was lost 2 times in a row; the last: out of mem"):
        await call
    with pytest.raises(EngineDeadError, match="no worker is left"):
        await team.call()


async def test_an_engine_that_never_loads_is_no_fault_of_a_prompt(crew):
    """Its error is the one that a request gets which is refused."""
    team = await crew(1, restarts=1)
    call = team.call()
    await until(lambda: team.made[0].calls)
    team.prepare = lambda worker: worker.die(EngineError("SGLang could not load the model"))
    team.made[0].die()
    with pytest.raises(
        EngineDeadError, match="no worker is left: w0 was lost 2 times in a row; the last: SGLang could"
    ):
        await call
    assert failed_prompt(call.exception()) is None


async def test_weights_that_a_fresh_member_can_not_load_end_it_at_once(crew):
    team = await crew(1, restarts=100)

    def refuse(worker: Worker) -> None:
        raise SyncError("no parameter of that name")

    team.on_refit = refuse
    call = team.call()
    await until(lambda: team.made[0].calls)
    team.made[0].die(SyncError("half-written"))
    with pytest.raises(SyncError, match="no parameter of that name"):
        await call
    assert len(team.made) == 2


async def test_weights_that_one_alone_can_not_load_are_its_own_fault(crew, caplog):
    team = await crew(2, restarts=2)

    def refuse(worker: Worker) -> None:
        raise SyncError("out of memory")

    team.on_refit = refuse
    with caplog.at_level(logging.ERROR):
        team.made[0].die()
        await until(lambda: "given up" in caplog.text)
    assert "w0 was lost 3 times in a row; the last: out of memory" in caplog.text
    call = team.call()
    await until(lambda: team.made[1].calls)
    team.made[1].calls[0].set_result("done")
    assert await call == "done"


async def test_a_finished_call_clears_the_count_of_deaths(crew):
    team = await crew(1, restarts=1)
    for i in range(4):
        call = team.call()
        await until(lambda i=i: len(team.made) == i + 1 and team.made[i].calls)
        team.made[i].calls[0].set_result("done")
        await call
        team.made[i].die()
        await until(lambda i=i: team.fleet.replaced == i + 1)


async def test_one_that_dies_in_its_start_beside_others_is_replaced():
    team = Crew(2)
    team.made[0].die()
    await team.fleet.start()
    await until(lambda: len(team.fleet.actors) == 2 and team.fleet.replaced == 1)
    assert team.refitted == team.made[2:] and team.fleet.actors == [team.made[2], team.made[1]]
    await team.fleet.stop()


async def test_a_start_that_nobody_survives_is_raised():
    team = Crew(2)
    for worker in team.made:
        worker.die(EngineDeadError("out of memory"))
    with pytest.raises(EngineDeadError, match="out of memory"):
        await team.fleet.start()
    assert len(team.made) == 2


async def test_a_failed_start_is_raised(crew):
    team = Crew(1)
    team.made[0].die(EngineError("no such model"))
    with pytest.raises(EngineError, match="no such model"):
        await team.fleet.start()
    assert len(team.made) == 1
