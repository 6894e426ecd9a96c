"""From the learner's actor to a worker's: the configured transport, and the learner's spare way when that one fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from rl.cluster import RolloutPool
from rl.learner_group import LearnerGroup
from tests.integration.support import Paths, train_config

pytestmark = pytest.mark.timeout(900)


async def test_weights_reach_a_worker_by_the_transport_or_else_from_the_learner(
    cluster: None, paths: Paths, tmp_path: Path
) -> None:
    config = train_config(paths, tmp_path / "run", sync__transport="shm")
    pool = RolloutPool(config.rollout, config.model, config.data.prompts, [config.data.train], "raise", config.sync)
    learner = LearnerGroup(config)
    try:
        await asyncio.gather(pool.ready(), learner.start())
        reference = await learner.publish()
        (times,) = await pool.push(reference)
        assert times.transport == "shm" and times.fetch_s > 0
        ticket = await reference
        assert await pool.each("loaded") == {"rollout-0": (0, ticket.checksum)}

        elsewhere = replace(ticket, where=replace(ticket.where, host="another", name="another"))
        (times,) = await pool.push(ray.put(elsewhere))
        assert times.transport == "object_store", "asked of the learner through the handle in the ticket"
        assert pool.fleet.replaced == 0

        gone = replace(elsewhere, version=77)
        with pytest.raises(ray.exceptions.RayTaskError, match=r"versions \[0\] and no more those of 77"):
            await pool.fleet.actors[0].update_weights.remote(gone)
    finally:
        await asyncio.gather(pool.close(), learner.close())
