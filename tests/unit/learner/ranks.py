"""What one of several ranks does in test_two_ranks: every scenario in turn, then its results into a file."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from rl.batch.sequences import ImageTable
from rl.config.learner import LearnerConfig, LogitsConfig
from rl.learner.batches import MicroBatcher
from rl.learner.objective import token_logprobs
from rl.models.freeze import set_trainable
from tests.unit.learner.tiny import (
    cut,
    from_folder,
    group_samples,
    objective_step,
    one_step,
    prepare,
    text_policy,
    text_samples,
    update,
    vision_policy,
    vision_samples,
)

TEXT = {"blocks": ("blocks", "adamw"), "root": ("root", "adamw"), "muon": ("blocks", "muon")}
SMALL_TILES = LogitsConfig(tile_mib=0.001)
"""131 logits, of 40 a token."""
TEXT_PARTS = [[[0, 1, 2]], [[3], [4, 6], [5]]]
"""Micro-batches of each rank: one against three."""
VISION_PARTS = [[[0]], [[1], [2]]]
"""Only the first sequence has an image, so the second rank never sees one."""

FROZEN = {"projector only": ["projector"], "language only": ["language"], "one matrix": ["*layers.1*.down_proj.*"]}
"""Shards in which few parameters learn; on the second rank the projector runs over a blank image only."""

MEMORY: dict[str, dict[str, Any]] = {
    "recomputed": {"activation_checkpointing": True},
    "offloaded": {"fsdp": {"cpu_offload": True}},
    "built on meta": {"fsdp": {"meta_init": True}},
    "all three": {"activation_checkpointing": True, "fsdp": {"cpu_offload": True, "meta_init": True}},
}
"""Settings that change where numbers are and not what they are."""
ADAPTERS = {"lora": {}, "lora on meta": {"fsdp": {"meta_init": True}}}

PLANNED = {"all text": 20, "own vision": 60}
"""Token budgets of packed micro-batches: several for each of two ranks, which plan for all samples or for their own."""


def planned_step(name: str) -> dict[str, torch.Tensor]:
    """One step of this rank's micro-batches as the learner plans them; `count` and `tokens` say what they were."""
    vision = "vision" in name
    policy = vision_policy() if vision else text_policy()
    samples, images = group_samples(policy) if vision else (text_samples(policy), ImageTable())
    config = LearnerConfig(tokens_per_microbatch=PLANNED[name])
    batcher = MicroBatcher(config, policy, 0, torch.device("cpu"))
    if "own" in name:
        # The first rank gets all but the last two, so that by itself it makes more micro-batches than the second.
        owned = [range(len(samples) - 2), range(len(samples) - 2, len(samples))]
        mine = owned[dist.get_rank()] if dist.get_world_size() == 2 else range(len(samples))
        batches = batcher.of_own([samples[i] for i in mine], images)
        # The loss gives advantages by the place in the whole list.
        batches = [replace(batch, index=tuple(mine[i] for i in batch.index)) for batch in batches]
    else:
        batches = batcher.of_all(samples, images, dist.get_rank(), dist.get_world_size())
    shape = {"count": torch.tensor(len(batches)), "tokens": torch.tensor([batch.tokens for batch in batches])}
    return one_step(policy, batches, len(samples)) | shape


OBJECTIVES: dict[str, dict[str, Any]] = {
    "token mean, kl_cov, reference": {
        "name": "dapo",
        "covariance": {"control": "kl_cov", "share": 0.3, "coefficient": 0.2},
        "reference": {"coefficient": 0.1},
    },
    "constant, clip_cov": {"name": "dr_grpo", "covariance": {"control": "clip_cov", "share": 0.2, "low": 0, "high": 9}},
}
"""Losses that need numbers of all ranks before their first micro-batch."""


def scenarios(parts: dict[str, list[list[int]]], folder: str) -> dict[str, Any]:
    """Parameters after one step of each scenario, and proximal logprobs, for this rank's micro-batches.

    `folder` holds the models `text` and `vision`.
    """
    results: dict[str, Any] = {}
    for name, (wrap, optimizer) in TEXT.items():
        policy = text_policy()
        results[name] = one_step(policy, cut(text_samples(policy), parts["text"]), 7, wrap, optimizer)
    policy = text_policy(logits=SMALL_TILES)
    results["tiles"] = one_step(policy, cut(text_samples(policy), parts["text"]), 7)
    policy = vision_policy()
    samples, images = vision_samples(policy)
    results["vision"] = one_step(policy, cut(samples, parts["vision"], images), 3)
    for name, settings in MEMORY.items():
        strategy = from_folder(f"{folder}/vision", **settings)
        results[name] = update(strategy, cut(samples, parts["vision"], images), 3)
    for name, settings in ADAPTERS.items():
        torch.manual_seed(4)
        strategy = from_folder(f"{folder}/vision", lora={"rank": 2}, **settings)
        results[name] = update(strategy, cut(samples, parts["vision"], images), 3)
    for name in FROZEN:
        policy = vision_policy()
        set_trainable(policy, FROZEN[name])
        results[name] = one_step(policy, cut(samples, parts["vision"], images), 3)
    policy = text_policy()
    results["packed"] = one_step(policy, cut(text_samples(policy), parts["text"], packed=True), 7)
    for name in PLANNED:
        results[name] = planned_step(name)
    policy = text_policy()
    prepare(policy)
    batches = cut(text_samples(policy), parts["text"])
    results["proximal"] = token_logprobs(policy, batches, 1.0)
    for name, loss in OBJECTIVES.items():
        results[name] = objective_step(text_policy(), parts["text"], f"{folder}/text", **loss)
    return results


def resumed_step(folder: str, start: str | None, end: str | None, parts: list[list[int]]) -> dict[str, torch.Tensor]:
    """One update of a model that learns its last layer, from checkpoint `start` to checkpoint `end`."""
    strategy = from_folder(f"{folder}/text", ["*layers.1.*"])
    if start is not None:
        strategy.load(Path(folder, start))
    result = update(strategy, cut(text_samples(strategy.policy), parts), 7)
    if end is not None:
        strategy.save(Path(folder, end), 1, background=True).result()
    return result


def main(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=40),
    )
    results = scenarios({"text": TEXT_PARTS[rank], "vision": VISION_PARTS[rank]}, folder)
    resumed_step(folder, "one", "two", TEXT_PARTS[rank])
    torch.save(results, Path(folder) / f"rank_{rank}.pt")
    dist.destroy_process_group()
