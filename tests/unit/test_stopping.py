"""A run that is asked to stop: what is finished, what is broken off when its time is over, and what is on record."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

import pytest

from rl import train
from rl.config.train import CheckpointConfig, EvalDuringConfig
from rl.data.store import OrderedPrompts, ProfileRequest
from rl.errors import StoppedError
from rl.loop import Loop
from rl.stopping import CutShortError, unless
from tests.unit.fake_run import SECONDS, FakeRun

AT_ONCE, NEVER = 0.001, 3600.0
"""Settings of `checkpoint.stop_within_s`."""


class Run(FakeRun):
    """Fakes as `rl.train` drives them; `saved` is the ledger's state in each checkpoint, by step."""

    def __init__(self, out: Any, **algo: Any) -> None:
        super().__init__(str(out), **algo)
        self.saved: dict[int, dict[str, Any]] = {}

    async def drive(self, within_s: float, **changes: Any) -> None:
        checkpoint = CheckpointConfig(stop_within_s=within_s, **changes.pop("checkpoint", {}))
        data = self.config.data.model_copy(update={"eval": "e"})
        self.loop(data=data, checkpoint=checkpoint, **changes)
        await asyncio.wait_for(train._run_loop(self.built), SECONDS)

    async def _checkpoint(self, step: int, *parts: Any) -> Any:
        self.saved[step] = parts[3].state_dict()
        return await super()._checkpoint(step, *parts)

    def open(self, step: int) -> list[int]:
        """Prompts in flight in the checkpoint of a step."""
        return [row["uid"] for row in self.saved[step]["open"]]


async def forever(_: Any) -> None:
    await asyncio.Event().wait()


def test_the_default_time_is_two_minutes() -> None:
    assert CheckpointConfig().stop_within_s == 120


async def test_the_last_checkpoint_comes_before_the_evaluation(tmp_path) -> None:
    run = Run(tmp_path)
    await run.drive(NEVER)
    assert run.names()[-5:] == ["checkpoint", "written", "abort", "evaluate", "evaluated"]
    assert run.saved[3]["fates"] == {"trained": 6}


async def test_an_error_in_the_last_evaluation_leaves_the_checkpoint(tmp_path) -> None:
    run = Run(tmp_path)

    async def on_evaluate(step):
        raise ValueError("a bug of ours")

    run.on_evaluate = on_evaluate
    with pytest.raises(ValueError, match="a bug"):
        await run.drive(NEVER)
    assert ("written", 3) in run.events


async def test_sigterm_ends_the_last_evaluation_and_a_resumed_run_makes_that_alone(tmp_path) -> None:
    run = Run(tmp_path)

    async def on_evaluate(step):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

    run.on_evaluate = on_evaluate
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError, match="after step 3 of 3, before it was evaluated; --resume makes that"):
        await run.drive(NEVER)
    assert ("written", 3) in run.events and "evaluated" not in run.names()
    assert signal.getsignal(signal.SIGTERM) is before

    again = Run(tmp_path)
    loop = again.loop(data=run.config.data)
    again.ledger.load_state_dict(run.saved[3])
    resumed = Loop(
        again.config,
        loop.pool,
        loop.rewards,
        loop.learner,
        loop.prompts,
        again.ledger,
        loop.io,
        3,
        again.ledger.in_flight,
    )
    await asyncio.wait_for(train._run_loop(resumed), SECONDS)
    # `RunIO.checkpoint` sees that this one is there.
    assert again.names() == ["checkpoint", "written", "abort", "evaluate", "evaluated"]


async def test_a_step_that_ends_in_time_is_trained_and_checkpointed(tmp_path) -> None:
    run = Run(tmp_path)

    async def on_train(version):
        run.built.stop()

    run.on_train = on_train
    with pytest.raises(StoppedError, match="stopped after step 1 of 3; go on with --resume"):
        await run.drive(NEVER)
    assert run.saved[1]["fates"] == {"trained": 2} and ("written", 1) in run.events
    assert run.names().count("train") == 1


async def test_a_learner_that_is_in_a_step_at_the_end_of_the_time_keeps_the_older_checkpoint(tmp_path) -> None:
    """Its batch stays in flight: 0 and 1 were trained, 2 and 3 were given to the learner."""
    run = Run(tmp_path)

    async def on_train(version):
        if version == 2:
            run.built.stop()
            await asyncio.Event().wait()

    run.on_train = on_train
    with pytest.raises(
        StoppedError, match=r"stopped in step 2 of 3, which did not end within 0\.001 s .*stop_within_s"
    ):
        await run.drive(AT_ONCE, checkpoint={"every": 1})
    assert list(run.saved) == [1] and ("written", 1) in run.events
    assert run.saved[1]["fates"] == {"trained": 2}
    assert {row["uid"] for row in run.fates if row["fate"] == "trained"} == {0, 1}
    assert {row["uid"] for row in run.fates if row["fate"] == "in_flight"} == {2, 3}


@pytest.mark.parametrize("what", ["evaluate", "profile"])
async def test_an_evaluation_or_profile_is_broken_off_and_its_version_checkpointed(tmp_path, what, caplog) -> None:
    run = Run(tmp_path)

    class Prompts(OrderedPrompts):
        def profile_wanted(self) -> ProfileRequest | None:
            return ProfileRequest(("s1",), 2) if what == "profile" else None

    async def stuck(step):
        run.built.stop()
        await asyncio.Event().wait()

    run.prompts = Prompts(run.ids, 0)
    run.on_evaluate = run.on_profile = stuck
    with caplog.at_level(logging.WARNING), pytest.raises(StoppedError, match="stopped after step 1 of 3"):
        await run.drive(AT_ONCE, evaluation=EvalDuringConfig(every=1))
    assert "profile or evaluation at step 1 was broken off" in caplog.text
    assert run.saved[1]["fates"] == {"trained": 2} and ("written", 1) in run.events
    assert run.open(1) == [row["uid"] for row in run.fates if row["fate"] == "in_flight"]
    assert ("evaluated", 1) not in run.events


async def test_an_evaluation_that_ends_in_time_is_kept(tmp_path) -> None:
    run = Run(tmp_path)

    async def on_evaluate(step):
        run.built.stop()

    run.on_evaluate = on_evaluate
    with pytest.raises(StoppedError, match="after step 1 of 3"):
        await run.drive(NEVER, evaluation=EvalDuringConfig(every=1))
    assert ("evaluated", 1) in run.events and ("written", 1) in run.events


async def test_a_push_is_broken_off_and_its_step_is_on_record(tmp_path, caplog) -> None:
    run = Run(tmp_path)

    async def on_push(version):
        run.built.stop()
        await asyncio.Event().wait()

    run.on_push = on_push
    with caplog.at_level(logging.WARNING), pytest.raises(StoppedError, match="after step 1 of 3"):
        await run.drive(AT_ONCE)
    assert "push of version 1 was broken off" in caplog.text
    assert ("step", 1) in run.events and run.saved[1]["fates"] == {"trained": 2}


async def test_files_that_are_being_written_are_waited_for(tmp_path) -> None:
    run = Run(tmp_path)

    async def on_written(step):
        run.built.stop()
        await run.built.stopping.overdue.wait()

    run.on_written = on_written
    with pytest.raises(StoppedError):
        await run.drive(AT_ONCE, checkpoint={"every": 1})
    assert ("written", 1) in run.events


async def test_work_that_has_ended_counts_and_other_work_is_not_begun() -> None:
    event, ended = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        ended.set()
        return 7

    assert await unless(event, work()) == 7
    event.set()
    ended.clear()
    with pytest.raises(CutShortError):
        await unless(event, work())
    assert not ended.is_set()


async def test_work_that_is_broken_off_is_over() -> None:
    event, closed = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            event.set()
            await forever(None)
        finally:
            await asyncio.sleep(0)
            closed.set()

    with pytest.raises(CutShortError):
        await unless(event, work())
    assert closed.is_set()
