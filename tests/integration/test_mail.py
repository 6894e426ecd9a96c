"""Groups by mail from a real worker to a real grader, small and large, and from a worker that is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import ray

from rl.cluster import RewardClient, RolloutPool
from rl.config.rollout import RewardConfig, RolloutConfig, SamplingConfig
from rl.mail import Mailbox, Part
from rl.records import Group, GroupMeta
from rl.rollout.worker import PromptTask
from tests.integration.support import ENGINE, PROMPTS, Paths

pytestmark = pytest.mark.timeout(900)


async def test_groups_arrive_whole_and_a_killed_worker_is_noticed(cluster: None, paths: Paths) -> None:
    pool = RolloutPool(
        RolloutConfig(engine=ENGINE, sampling=SamplingConfig(max_tokens=400)),
        paths.random,
        PROMPTS,
        [paths.train],
        "raise",
    )
    rewards: RewardClient | None = None
    try:
        await pool.ready()
        ids, _, answer_types = await pool.catalogue(paths.train)
        rewards = RewardClient(RewardConfig(), answer_types)
        await rewards.ready()

        def task(uid: int, n: int, max_tokens: int) -> PromptTask:
            return PromptTask(uid, paths.train, ids[uid], n, uid, SamplingConfig(max_tokens=max_tokens))

        groups = await asyncio.gather(pool.generate(task(0, 2, 4)), pool.generate(task(1, 64, 400)))
        for (meta, scoring, payload), n in zip(groups, (2, 64), strict=True):
            assert isinstance(payload, Part) and isinstance(payload.column, ray.ObjectRef)
            _same(meta, await payload.fetched(), n)
            assert len((await rewards.score(scoring)).statuses) == n
            assert len(await rewards.answers(scoring, 10)) == n

        (actor,) = pool.fleet.actors  # whose mailbox of the pool is idle now
        asked: asyncio.Task[Any] = asyncio.create_task(Mailbox(actor, parts=2).ask(task(2, 64, 400)))
        while not (await actor.load.remote()).running:
            await asyncio.sleep(0.02)
        ray.kill(actor)
        with pytest.raises(ray.exceptions.RayActorError):
            await asked
    finally:
        await asyncio.gather(*(part.close() for part in (pool, rewards) if part is not None))


def _same(meta: GroupMeta, group: Group, n: int) -> None:
    assert (group.uid, group.sample_id) == (meta.uid, meta.sample_id)
    assert len(group.rollouts) == n
    assert tuple(len(rollout.token_ids) for rollout in group.rollouts) == meta.lengths
