"""Every way in which the loop stops by itself, and what it says while it waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import rl.loop
from rl import starvation
from rl.config.train import CheckpointConfig, StarvationConfig
from rl.errors import CheckpointError, DivergenceError, EngineDeadError, EngineError, StarvationError, SyncError
from rl.watch import Watch, watching
from tests.unit.fake_run import FakeRun, complete, fates


async def test_filters_that_leave_nothing_are_starvation(tmp_path):
    run = FakeRun(str(tmp_path), filters={"truncated": "mask"})
    run.meta = lambda meta: replace(meta, finish_reasons=("length", "length"))
    with pytest.raises(
        StarvationError, match=r"were filtered \(the last: truncated\).*algo.filters.truncated to count"
    ):
        await complete(run)


@pytest.mark.parametrize(
    "error", [ValueError("a bug of ours"), EngineDeadError("a worker died: gone")], ids=["bug", "dead worker"]
)
async def test_other_failures_stop_the_run_at_once(tmp_path, error):
    run = FakeRun(str(tmp_path))
    hang = asyncio.Event()

    async def on_generate(task):
        if task.uid == 1:
            raise error
        await hang.wait()  # nothing else ever finishes: the failure alone must end the run

    run.on_generate = on_generate
    with pytest.raises(type(error), match=str(error)):
        await complete(run)


async def test_nothing_to_learn_is_starvation(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(starvation, "_FEWEST", 1)
    run = FakeRun(str(tmp_path))
    run.rewards = lambda task: (0.0, 0.0)
    with pytest.raises(StarvationError, match=r"7 groups in a row had equal rewards \(the last: all_wrong\)"):
        await complete(run, starvation=StarvationConfig(filtered=3))
    # One more than 3 capacities of 2 raises; the other slot may close its own at the same moment.
    assert run.ledger.counts()["filtered"] in (7, 8) and "train" not in run.names()
    (said,) = [record.message for record in caplog.records if record.name == "rl.starvation"]
    assert said.startswith("2 groups in a row had equal rewards (the last: all_wrong), so nothing can be learned")
    assert said.endswith("After more than 6 the run ends (starvation.filtered)")


async def test_in_a_small_run_many_more_groups_than_its_capacity_may_be_filtered(tmp_path):
    """Ten times 40, of two slots; the other slot may close its own at the same moment."""
    run = FakeRun(str(tmp_path))
    run.rewards = lambda task: (1.0, 1.0)
    with pytest.raises(StarvationError, match=r"401 groups in a row had equal rewards \(the last: all_right\)"):
        await complete(run)
    assert run.ledger.counts()["filtered"] in (401, 402)


async def test_a_group_to_train_on_resets_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr(starvation, "_FEWEST", 1)
    run = FakeRun(str(tmp_path))
    run.rewards = lambda task: (1.0, 0.0) if task.uid % 3 == 2 else (0.0, 0.0)
    await complete(run, steps=6, starvation=StarvationConfig(filtered=1))
    assert run.ledger.counts()["filtered"] >= 2 * 12


async def test_failing_prompts_in_a_row_are_starvation(tmp_path, caplog):
    run = FakeRun(str(tmp_path))
    run.rewards = lambda task: (None, None)
    with pytest.raises(StarvationError, match="5 prompts in a row failed; the last one: reward: timeout"):
        await complete(run, starvation=StarvationConfig(failed=2))
    (said,) = [record.message for record in caplog.records if record.name == "rl.starvation"]
    assert said.startswith("2 prompts in a row failed; the last one: reward: timeout. After more than 4 the run ends")


async def test_engine_and_learner_that_disagree_stop_the_run(tmp_path):
    run = FakeRun(str(tmp_path))
    run.probe = lambda version: (2e-6 if version == 1 else 3e-3, 1e-2, version)
    with pytest.raises(DivergenceError, match=r"at version 2 .* 0\.003 nats .*limit 0\.0001"):
        await complete(run)
    assert [row["probe/logprob_delta_mean"] for row in run.rows] == [2e-6]


async def test_a_probe_that_is_not_a_number_stops_the_run(tmp_path):
    run = FakeRun(str(tmp_path))
    run.probe = lambda version: (float("nan"), float("nan"), version)
    with pytest.raises(DivergenceError):
        await complete(run)


async def test_an_engine_on_another_version_stops_the_run(tmp_path):
    run = FakeRun(str(tmp_path))
    run.probe = lambda version: (0.0, 0.0, version - 1)
    with pytest.raises(SyncError, match=r"with version 1 pushed the engines serve \[0\]"):
        await complete(run)


async def test_a_failed_push_stops_the_run(tmp_path):
    run = FakeRun(str(tmp_path))

    async def on_push(version):
        raise EngineError("out of memory")

    run.on_push = on_push
    with pytest.raises(SyncError, match="push of version 1: out of memory"):
        await complete(run)


async def test_a_learner_that_diverges_stops_the_run(tmp_path):
    run = FakeRun(str(tmp_path))

    async def on_train(version):
        raise DivergenceError("loss nan")

    run.on_train = on_train
    with pytest.raises(DivergenceError, match="loss nan"):
        await complete(run)
    assert run.ledger.counts()["trained"] == 0 and run.ledger.counts()["in_flight"] == 2


async def test_a_checkpoint_that_can_not_be_written_ends_the_run(tmp_path):
    run = FakeRun(str(tmp_path))

    async def on_written(step):
        raise CheckpointError("disk full")

    run.on_written = on_written
    with pytest.raises(CheckpointError, match="disk full"):
        await complete(run, steps=6, checkpoint=CheckpointConfig(every=2))


async def test_silence_is_starvation(tmp_path):
    run = FakeRun(str(tmp_path))
    never = asyncio.Event()

    async def on_generate(task):
        await never.wait()

    run.on_generate = on_generate
    with pytest.raises(
        StarvationError, match=r"nothing finished .* version 0: 2 of 2 slots in use, 0 groups ready of 2"
    ):
        await complete(run, stall_timeout_s=0.05)
    assert fates(run) == {"in_flight": 2}


async def test_a_run_that_gets_no_batch_says_what_its_groups_came_to(tmp_path, monkeypatch):
    monkeypatch.setattr(rl.loop, "_WATCH_S", 0.0)
    monkeypatch.setattr(rl.loop, "_QUIET_S", 0.0)
    run, said = FakeRun(str(tmp_path)), asyncio.Event()
    # Groups 0 and 1 are filtered, 2 fails, 3 is ready; 4 comes only after the line that says so.
    table = {0: (1.0, 1.0), 1: (0.0, 0.0), 2: (None, None)}
    run.rewards = lambda task: table.get(task.uid, (1.0, 0.0))
    expected = {"filtered:all_right": 1, "filtered:all_wrong": 1, "failed:reward: timeout": 1}

    async def on_generate(task):
        if task.uid == 4:
            await said.wait()

    def on_waiting(reasons, ready, needed):
        if (reasons, ready, needed) == (expected, 1, 2):
            said.set()

    run.on_generate, run.on_waiting = on_generate, on_waiting
    await complete(run, steps=1)
    assert said.is_set()


async def test_a_learner_that_computes_is_not_said_to_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(rl.loop, "_WATCH_S", 0.0)
    monkeypatch.setattr(rl.loop, "_QUIET_S", 0.0)
    run, lines, said_meanwhile = FakeRun(str(tmp_path)), [], []
    run.on_waiting = lambda *said: lines.append(said)

    async def on_train(version):
        before = len(lines)
        for _ in range(20):  # turns of the watch
            await asyncio.sleep(0)
        said_meanwhile.append(len(lines) - before)

    run.on_train = on_train
    await complete(run, steps=2)
    assert said_meanwhile == [0, 0]


async def test_a_stalled_run_says_whom_it_waits_for(tmp_path):
    run, clock = FakeRun(str(tmp_path)), iter([0.0, 0.0] + [1e6] * 100)
    never = asyncio.Event()

    async def on_generate(task):
        await never.wait()

    run.on_generate = on_generate
    async with watching(Watch(clock=lambda: next(clock))):
        with pytest.raises(StarvationError, match=r"generate takes long .*: train 0 \(s\d+\) for 1000000 s, "):
            await complete(run, stall_timeout_s=0.05)
