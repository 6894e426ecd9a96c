"""Two learner ranks over gloo take the same steps as one, from the same groups."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from rl.batch.plan import plan_updates
from rl.config.train import TrainConfig
from rl.learner_group import LearnerGroup
from rl.mail import Part
from rl.models.encoder import EncodedPrompt
from rl.records import Group, GroupMeta, ScoredGroup
from rl.rollout.vllm_engine import VllmEngine
from rl.sync.bundle import unpack
from tests.integration.support import Paths, bundle_behind, request, train_config
from tests.unit.groups import plain_grades

pytestmark = pytest.mark.timeout(120)

GROUPS, SIZE = 8, 4
STEPS = 2
TIMES = ("time/train_start", "time/train_end", "sync/stage_s")


async def sample_groups(engine: VllmEngine, prompts: list[EncodedPrompt]) -> list[ScoredGroup]:
    """Groups of text and image prompts with answers of 1 to 24 tokens and rewards drawn at random; one has none."""
    rng = np.random.default_rng(0)
    requests = [
        request(f"g{i}", prompts[i + 1], n=SIZE, seed=10 * i, max_tokens=1 + (5 * i) % 24) for i in range(GROUPS)
    ]
    scored = []
    for uid, made in enumerate(await asyncio.gather(*map(engine.generate, requests))):
        prompt = prompts[uid + 1]
        group = Group(uid, "x", made.prompt_ids, prompt.images, prompt.digests, made.rollouts)
        lengths = tuple(len(rollout.token_ids) for rollout in made.rollouts)
        meta = GroupMeta(uid, "x", "x", lengths, len(made.prompt_ids), ("stop",) * SIZE, 0, 0, "test", 0.0, 0.0)
        rewards = tuple(rng.random(SIZE))
        scored.append(ScoredGroup(meta, Part(ray.put([group]), 0), rewards, plain_grades(rewards)))
    return scored


async def two_steps(
    config: TrainConfig, groups: list[ScoredGroup]
) -> tuple[list[dict[str, float]], list[np.ndarray], dict[str, torch.Tensor]]:
    """Metrics and probe logprobs of each step, and the weights after the last."""
    advantages: list[list[float | None]] = [[reward - 0.5 for reward in group.rewards] for group in groups]
    advantages[0][1] = None  # a failed grader
    half = GROUPS // STEPS
    learner = LearnerGroup(config)
    metrics, probes = [], []
    try:
        await learner.start()
        await learner.set_probe(await asyncio.gather(*(group.payload.fetched() for group in groups[:4])))
        for step in range(STEPS):
            part = slice(step * half, (step + 1) * half)
            shares = plan_updates(groups[part], advantages[part], config.learner.ranks, config.algo.updates_per_step)
            row, ticket, probe = await learner.train(shares)
            metrics.append(row)
            probes.append(await probe)
        return metrics, probes, unpack(await bundle_behind(ticket))
    finally:
        await learner.close()


async def test_ranks_do_not_change_the_step(
    cluster: None, engine: VllmEngine, prompts: list[EncodedPrompt], paths: Paths, tmp_path: Path
) -> None:
    """Two updates a step, so that the proximal pass runs too; micro-batches of uneven number, some without images.

    The last update has no image at all: the vision tower then moves by its momentum alone, on any number of ranks.
    """
    groups = await sample_groups(engine, prompts)
    changes = {
        "model": paths.random,
        "algo__updates_per_step": 2,
        "learner__tokens_per_microbatch": 96,
        "learner__fsdp__wrap": "blocks",
        # With the default of 1e-8 Adam turns gradients that are noise around zero into whole steps.
        "learner__optimizer__eps": 1e-3,
    }
    one, two = (train_config(paths, tmp_path, **changes, learner__ranks=ranks) for ranks in (1, 2))
    (rows, probes, weights), (rows2, probes2, weights2) = await asyncio.gather(
        two_steps(one, groups), two_steps(two, groups)
    )
    for row, row2 in zip(rows, rows2, strict=True):
        assert row.keys() == row2.keys()
        for key in row.keys() - set(TIMES) - {"batch/micro_batches"}:
            assert row2[key] == pytest.approx(row[key], abs=1e-5, rel=1e-5), key
    assert np.abs(probes[1] - probes[0]).max() > 1e-3  # the steps changed something
    for probe, probe2 in zip(probes, probes2, strict=True):
        np.testing.assert_allclose(probe2, probe, atol=1e-5)
    assert weights.keys() == weights2.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(weights2[name], tensor, rtol=0, atol=1e-5)
