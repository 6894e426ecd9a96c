"""The loop over fakes: order of events, staleness, checkpoints, curriculum, metrics. Gated on events, not on time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import rl.loop
from rl.config.train import CheckpointConfig, EvalDuringConfig
from rl.data.store import OrderedPrompts, ProfileRequest
from rl.ledger import Admission
from tests.unit.fake_run import SECONDS, FakeRun, complete
from tests.unit.groups import make_group


@pytest.mark.parametrize("staleness", [0, 1, 3])
async def test_every_admitted_prompt_has_one_fate(tmp_path, staleness):
    run = FakeRun(str(tmp_path), max_staleness=staleness)
    await complete(run, steps=5)
    counts = run.ledger.counts()
    assert counts["trained"] == 5 * 2
    assert counts["admitted"] == counts["trained"] + counts["in_flight"] + counts["stale"]
    assert counts["in_flight"] <= 2 * (staleness + 1)
    assert [event[1] for event in run.events if event[0] == "push"] == [1, 2, 3, 4, 5]
    assert [event[1] for event in run.events if event[0] == "step"] == [1, 2, 3, 4, 5]
    assert all(age <= staleness for event in run.events if event[0] == "train" for age in event[2])


async def test_synchronous_is_a_plain_loop(tmp_path):
    run = FakeRun(str(tmp_path))
    await complete(run)
    relevant = [event for event in run.events if event[0] in ("generate", "train", "push")]
    for step in range(3):
        first, second, train, push = relevant[4 * step : 4 * step + 4]
        assert (first[0], first[1], first[3]) == ("generate", 2 * step, step)
        assert (second[0], second[1], second[3]) == ("generate", 2 * step + 1, step)
        assert train == ("train", step + 1, [0, 0]), "S = 0 trains on groups of the current version only"
        assert push == ("push", step + 1)


async def test_synchronous_refills_filtered_slots_from_the_same_version(tmp_path):
    run = FakeRun(str(tmp_path))
    run.rewards = lambda task: (1.0, 1.0) if task.uid % 2 else (1.0, 0.0)
    await complete(run)
    assert all(event[2] == [0, 0] for event in run.events if event[0] == "train")
    assert run.ledger.counts()["trained"] == 6


async def test_generation_goes_on_while_the_learner_trains(tmp_path):
    run = FakeRun(str(tmp_path), max_staleness=1)
    started = asyncio.Event()

    async def on_generate(task):
        if task.uid == 4:
            started.set()

    async def on_train(version):
        if version == 2:
            await started.wait()  # the four slots are taken: only the push of step 1 during this step frees one

    run.on_generate, run.on_train = on_generate, on_train
    await complete(run)
    order = [event[:2] for event in run.events]
    assert order.index(("push", 1)) < order.index(("generate", 4)) < order.index(("push", 2))


async def test_stale_groups_are_dropped_and_their_prompt_comes_back(tmp_path):
    run = FakeRun(str(tmp_path), prompts_per_step=1, max_staleness=1)
    trained_twice, came_back = asyncio.Event(), asyncio.Event()
    samples: dict[int, str] = {}

    async def on_generate(task):
        samples[task.uid] = task.sample_id
        if task.uid == 0:
            await trained_twice.wait()  # begun at version 0, done at version 2: one too many for S = 1
        elif task.sample_id == samples[0]:
            came_back.set()
        elif run.engine_version == 2:
            await came_back.wait()

    async def on_push(version):
        if version == 2:
            trained_twice.set()

    run.on_generate, run.on_push = on_generate, on_push
    await complete(run)
    (row,) = [row for row in run.fates if row["fate"] == "stale"]
    assert row["uid"] == 0 and "older than 1 versions" in row["reason"]
    again = [uid for uid, sample in samples.items() if sample == samples[0] and uid != 0]
    assert len(again) == 1, "the prompt went back to the queue once, under a new uid"
    assert 0 not in {group.payload.uid for shares in run.shares for r in shares for u in r for group in u.groups}


async def test_a_slow_group_is_overtaken_as_long_as_the_bound_allows_and_then_waited_for(tmp_path):
    run = FakeRun(str(tmp_path), prompts_per_step=1, max_staleness=2, late_groups="wait")
    overtaken = asyncio.Event()

    async def on_generate(task):
        if task.uid == 0:
            await overtaken.wait()
            for _ in range(50):  # turns of the loop: the learner could go on if it did not wait
                await asyncio.sleep(0)

    async def on_push(version):
        if version == 2:
            overtaken.set()  # the step from version 2 is the last that may train a group begun at version 0

    run.on_generate, run.on_push = on_generate, on_push
    await complete(run)
    trained = [[group.payload.uid for r in shares for u in r for group in u.groups] for shares in run.shares]
    assert trained[2] == [0] and run.ledger.counts()["stale"] == 0
    assert [event[2] for event in run.events if event[0] == "train"][2] == [2]


async def test_groups_that_are_too_old_all_the_same_are_dropped_and_their_prompt_comes_back(tmp_path):
    run = FakeRun(str(tmp_path), prompts_per_step=1, max_staleness=1)
    # An engine that says it sampled from an older version than had reached it, as no healthy one does.
    run.meta = lambda meta: replace(meta, oldest_version=-2) if meta.uid == 0 else meta
    await complete(run)
    (row,) = [row for row in run.fates if row["fate"] == "stale"]
    assert row["uid"] == 0 and "older than 1 versions" in row["reason"]
    again = [task.uid for task in run.tasks if task.sample_id == run.tasks[0].sample_id and task.uid != 0]
    assert len(again) == 1, "the prompt went back to the queue once, under a new uid"
    assert 0 not in {group.payload.uid for shares in run.shares for r in shares for u in r for group in u.groups}


async def test_evaluations_and_checkpoints_when_due_and_after_the_push(tmp_path):
    run = FakeRun(str(tmp_path), max_staleness=1)
    await complete(run, steps=6, evaluation=EvalDuringConfig(every=3), checkpoint=CheckpointConfig(every=2))
    # The last step's are made by `rl.train`, after the loop.
    assert [event for event in run.events if event[0] == "evaluate"] == [("evaluate", 3, 3)]
    assert [event for event in run.events if event[0] == "checkpoint"] == [("checkpoint", 2, 2), ("checkpoint", 4, 4)]


async def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    """One is complete before the next is taken, and all are before the run ends."""
    run = FakeRun(str(tmp_path))
    trained = asyncio.Event()

    async def on_train(version):
        if version == 3:
            trained.set()

    async def on_written(step):
        await trained.wait()  # for ever, if the third step waited for the files of the second

    run.on_train, run.on_written = on_train, on_written
    await complete(run, steps=6, checkpoint=CheckpointConfig(every=2))
    order = [event[:2] for event in run.events if event[0] in ("train", "checkpoint", "written")]
    assert order.index(("train", 3)) < order.index(("written", 2)) < order.index(("checkpoint", 4))
    assert order.count(("written", 4)) == 1


async def test_rows_hold_metrics_of_step_window_and_push(tmp_path):
    run = FakeRun(str(tmp_path))
    await complete(run, steps=1)
    (row,) = run.rows
    assert row["reward/mean"] == 0.5 and row["staleness/hist"] == {"0": 2}
    assert row["sync/pause_s"] == 0.25 and row["sync/apply_s"] == 0.125 and row["sync/fetch_s"] == 0.0625
    assert row["sync/fallbacks"] == 1, "disk is not the configured transport"
    assert row["time/learner_busy_s"] == 1.0 and row["probe/threshold"] == 1e-4


async def test_a_resumed_run_starts_with_the_prompts_in_flight(tmp_path):
    run = FakeRun(str(tmp_path))
    loop = run.loop(steps=5)
    for sample in ("s7", "s3"):
        run.ledger.admit(sample, 3)
    pending = run.ledger.in_flight
    assert pending == (Admission(0, "s7", 3), Admission(1, "s3", 3))
    resumed = rl.loop.Loop(
        run.config, loop.pool, loop.rewards, loop.learner, loop.prompts, run.ledger, loop.io, 3, pending
    )
    run.engine_version = 3
    run.events += [("train", version, []) for version in (1, 2, 3)]
    await asyncio.wait_for(resumed.run(), SECONDS)
    generated = [event for event in run.events if event[0] == "generate"]
    assert [event[1:3] for event in generated[:2]] == [(0, "s7"), (1, "s3")]
    assert resumed.version == 5 and run.ledger.counts()["trained"] == 4


async def test_a_resumed_run_trains_what_had_finished_and_does_not_sample_it_again(tmp_path):
    """Of five groups that waited at step 3 one is too old by then; it is sampled again, the others are trained."""
    run = FakeRun(str(tmp_path), max_staleness=1)
    loop = run.loop(steps=5)
    for uid in range(6):
        run.ledger.admit(f"s{uid}", 2)
    finished = []
    for uid, oldest in enumerate((2, 3, 2, 1, 3)):
        made = make_group(uid, oldest=oldest)
        meta = replace(made.meta, sample_id=f"s{uid}")
        finished.append(replace(made, meta=meta, payload=meta))
    pending = run.ledger.in_flight[5:]
    parts = (loop.pool, loop.rewards, loop.learner, loop.prompts, run.ledger, loop.io, 3, pending, (), finished)
    resumed = rl.loop.Loop(run.config, *parts)
    assert resumed.buffer.used == 5 > resumed.buffer.capacity  # it was larger before
    assert resumed.buffer.finished() == tuple(finished)
    run.engine_version = 3
    run.events += [("train", version, []) for version in (1, 2, 3)]
    await asyncio.wait_for(resumed.run(), SECONDS)
    sampled = {event[1] for event in run.events if event[0] == "generate"}
    assert not sampled & set(range(5)) and 5 in sampled
    fates = {row["uid"]: (row["fate"], row["step"]) for row in run.fates}
    assert {uid: fates[uid] for uid in range(5)} == {
        0: ("trained", 4),
        2: ("trained", 4),
        3: ("stale", 3),
        1: ("trained", 5),
        4: ("trained", 5),
    }
    again = [event[2] for event in run.events if event[0] == "generate"]
    assert "s3" in again and resumed.version == 5
    assert run.rows[0]["groups/finished"] >= 5


async def test_no_task_outlives_the_run(tmp_path):
    run = FakeRun(str(tmp_path), max_staleness=2)
    never = asyncio.Event()

    async def on_generate(task):
        if task.uid >= 6:
            await never.wait()

    run.on_generate = on_generate
    before = asyncio.all_tasks()
    await complete(run)
    assert asyncio.all_tasks() == before


class Watching(OrderedPrompts):
    """Notes what it is told, and wants a profile after the first step."""

    def __init__(self, ids) -> None:
        super().__init__(ids, seed=0)
        self.seen: list[tuple] = []
        self.answers: list[dict] = []

    def observe(self, sample_id, rewards, fate, uid) -> None:
        self.seen.append((uid, rewards, fate))

    def advance(self, step) -> dict[str, float]:
        self.seen.append(("step", step))
        return {"curriculum/mean": 1.0 / step}

    def profile_wanted(self) -> ProfileRequest | None:
        return ProfileRequest(("s0", "s1"), 4) if self.seen[-1] == ("step", 1) and not self.answers else None

    def profiled(self, counts) -> None:
        self.answers.append(counts)


async def test_a_curriculum_learns_of_every_fate_once(tmp_path):
    run = FakeRun(str(tmp_path), group_size=3, filters={"truncated": "mask"})
    run.prompts = prompts = Watching(run.ids)
    table = {0: (1.0, 1.0, 1.0), 1: (None, None, 1.0)}
    run.rewards = lambda task: table.get(task.uid, (1.0, 1.0, 0.0))
    run.meta = lambda meta: replace(meta, finish_reasons=("length", "stop", "stop"))
    await complete(run, steps=2)
    told = {uid: (rewards, fate) for uid, rewards, fate in (row for row in prompts.seen if row[0] != "step")}
    assert told[0] == ((1.0, 1.0, 1.0), "filtered") and told[1] == ((), "failed")
    assert all(row == ((1.0, 1.0, 0.0), "trained") for uid, row in told.items() if uid > 1), "masked ones included"
    ends = {row["uid"]: row["fate"] for row in run.fates if row["fate"] != "in_flight"}
    assert {uid: fate for uid, (_, fate) in told.items()} == ends
    assert [row for row in prompts.seen if row[0] == "step"] == [("step", 1), ("step", 2)]
    assert [row["curriculum/mean"] for row in run.rows] == [1.0, 0.5]


async def test_a_profile_that_is_asked_for_is_made_with_the_pushed_weights(tmp_path):
    run = FakeRun(str(tmp_path))
    run.prompts = prompts = Watching(run.ids)
    await complete(run, steps=3)
    assert [event for event in run.events if event[0] == "profile"] == [("profile", 1, 1)]
    assert prompts.answers == [{"s0": (1, 4), "s1": (1, 4)}]


async def test_rows_say_how_busy_the_engines_are(tmp_path):
    run = FakeRun(str(tmp_path))
    await complete(run, steps=1)
    (row,) = run.rows
    assert (row["engine/running"], row["engine/waiting"], row["engine/kv_use"]) == (3.0, 1.0, 0.5)
