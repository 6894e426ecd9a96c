"""S = 0 is synchronous training: the loop and a plain sequence of the same calls give the same run."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl.batch.plan import GroupShare, UpdateShare
from rl.cluster import RewardClient, RolloutPool
from rl.config.train import TrainConfig
from rl.data.store import OrderedPrompts
from rl.eval.runner import attempt_seed
from rl.learner_group import LearnerGroup
from rl.ledger import Ledger
from rl.loop import Loop
from rl.metrics.console import RunTable
from rl.metrics.tracker import Tracker
from rl.records import Grades
from rl.rollout.worker import PromptTask
from rl.run_io import RunIO
from rl.sync.bundle import unpack
from tests.integration.support import Paths, bundle_behind, train_config

pytestmark = pytest.mark.timeout(150)

STEPS = 3


@dataclass
class Run:
    """What was sampled and learned, by admission."""

    tokens: dict[int, list[list[int]]] = field(default_factory=dict)
    samples: dict[int, str] = field(default_factory=dict)
    rewards: dict[int, tuple[float | None, ...]] = field(default_factory=dict)
    trained: list[list[int]] = field(default_factory=list)
    """Admissions of each step's batch, in order."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)


class Pool(RolloutPool):
    """Notes every group that it hands out."""

    def note(self, run: Run) -> None:
        self.run, self.uids = run, {}

    async def generate(self, task: PromptTask) -> tuple[Any, Any, Any]:
        meta, scoring, payload = await super().generate(task)
        group = await payload.fetched()
        self.run.tokens[task.uid] = [rollout.token_ids.tolist() for rollout in group.rollouts]
        self.run.samples[task.uid] = task.sample_id
        self.uids[scoring] = task.uid
        return meta, scoring, payload


class Rewards(RewardClient):
    pool: Pool

    async def score(self, scoring: Any, evaluation: bool = False) -> Grades:
        grades = await super().score(scoring, evaluation)
        self.pool.run.rewards[self.pool.uids[scoring]] = grades.rewards
        return grades


class Learner(LearnerGroup):
    run: Run

    async def train(
        self, shares: Sequence[Sequence[Any]], record: str | None = None
    ) -> tuple[dict[str, float], Any, Any]:
        metrics, bundle, probe = await super().train(shares, record)
        ((update,),) = shares
        self.run.trained.append([(await share.payload.fetched()).uid for share in update.groups])
        self.run.metrics.append(dict(metrics))
        return metrics, bundle, probe


def numpy_advantages(rewards: np.ndarray) -> np.ndarray:
    """[B, G] -> [B, G]: (10 (r - 0.5)) by the mean and deviation of its group, then by those of the batch."""
    scaled = (rewards - 0.5) * 10
    grouped = (scaled - scaled.mean(1, keepdims=True)) / (scaled.std(1, keepdims=True) + 1e-6)
    return (grouped - grouped.mean()) / (grouped.std() + 1e-6)


async def by_hand(config: TrainConfig, pool: Pool, rewards: Rewards, learner: Learner, ids: tuple[str, ...]) -> None:
    """Synchronous RL in one coroutine: one prompt after another, then a step, then a push."""
    order, uid, algo = OrderedPrompts(ids, config.seed), 0, config.algo
    for _ in range(config.steps):
        payloads, values, uids = [], [], []
        while len(payloads) < algo.prompts_per_step:
            sample_id = next(order).sample_id
            seed = attempt_seed(config.seed, f"{uid}|{sample_id}")
            task = PromptTask(uid, config.data.train, sample_id, algo.group_size, seed, config.rollout.sampling)
            _, scoring, payload = await pool.generate(task)
            scores = (await rewards.score(scoring)).rewards
            uid += 1
            if len(set(scores)) > 1:
                payloads.append(payload)
                uids.append(uid - 1)
                values.append(scores)
        advantages = numpy_advantages(np.asarray(values, dtype=np.float64)).tolist()
        groups = tuple(GroupShare(p, tuple(a), u) for p, a, u in zip(payloads, advantages, uids, strict=True))
        _, bundle, _ = await learner.train([[UpdateShare(groups, len(groups) * algo.group_size)]])
        await pool.push(bundle)


async def by_loop(
    config: TrainConfig, pool: Pool, rewards: Rewards, learner: Learner, ids: tuple[str, ...]
) -> dict[str, int]:
    tracker = Tracker(Path(config.out))
    ledger = Ledger(tracker.fate)
    try:
        with RunTable(config.steps) as table:
            io = RunIO(config, tracker, table, time.time())
            await Loop(config, pool, rewards, learner, OrderedPrompts(ids, config.seed), ledger, io).run()
    finally:
        tracker.close()
    return ledger.counts()


async def test_the_loop_at_staleness_0_is_synchronous_training(cluster: None, paths: Paths, tmp_path: Path) -> None:
    config = train_config(paths, tmp_path / "run", steps=STEPS)
    pool = Pool(config.rollout, config.model, config.data.prompts, [config.data.train], "raise")
    learners = [Learner(config), Learner(config)]
    rewards = Rewards(config.rewards, ("number", "math-expressions"))
    rewards.pool = pool
    runs = [Run(), Run()]
    try:
        await asyncio.gather(pool.ready(), rewards.ready(), *(learner.start() for learner in learners))
        ids, *_ = await pool.catalogue(config.data.train)
        probe = await pool.make_probe(
            [PromptTask(0, config.data.train, ids[0], 1, 0, config.rollout.sampling, tag="probe")]
        )
        await asyncio.gather(*(learner.set_probe(probe) for learner in learners))
        for way, learner, run in zip((by_loop, by_hand), learners, runs, strict=True):
            await pool.push(await learner.publish())  # both start from the model's own weights
            pool.note(run)
            learner.run = run
            counts = await way(config, pool, rewards, learner, ids)
            run.weights = unpack(await bundle_behind(await learner.publish()))
            if counts is not None:
                fates = counts
    finally:
        await asyncio.gather(*(part.close() for part in (pool, rewards, *learners)))
    loop, hand = runs
    assert_same_run(loop, hand)
    assert fates["admitted"] - fates["in_flight"] == fates["trained"] + fates["filtered"]
    assert fates["filtered"] > 0  # else the order of admissions would have nothing to get wrong
    assert fates["trained"] == STEPS * config.algo.prompts_per_step
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["staleness/max"] for row in rows] == [0.0] * STEPS
    assert [row["staleness/mean"] for row in rows] == [0.0] * STEPS


def assert_same_run(loop: Run, hand: Run) -> None:
    """The loop may have begun groups after the last batch; all others are those of the plain sequence."""
    assert loop.trained == hand.trained
    first = range(max(hand.trained[0]) + 1)
    assert set(hand.tokens) <= set(loop.tokens)
    for uid, tokens in hand.tokens.items():
        assert loop.samples[uid] == hand.samples[uid]
        if uid in first:
            assert loop.tokens[uid] == tokens
            assert loop.rewards[uid] == hand.rewards[uid]
    for ours, theirs in zip(loop.metrics, hand.metrics, strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4) and ours["grad_norm"] > 0.1
    # Bitwise equality is not promised: an engine batches requests as they come, and the order of float sums in its
    # kernels may follow the batch. Behaviour logprobs then differ in the last digits, and through Adam so do weights.
    for name, tensor in hand.weights.items():
        torch.testing.assert_close(loop.weights[name], tensor, rtol=0, atol=1e-5)
