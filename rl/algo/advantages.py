"""Group-relative advantages; failed graders are masked out of every statistic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rl.config.train import AdvantageConfig

_EPS = 1e-6

Rewards = Sequence[float | None]


def group_advantages(rewards: Rewards, config: AdvantageConfig) -> list[float | None]:
    """Advantages of one group; None where the reward is None.

    `mean_std` divides by the population standard deviation (GRPO, arXiv 2402.03300); `mean` only subtracts the mean
    (Dr. GRPO, arXiv 2503.20783). Bias and scale matter for `mean` only, and for what is logged.
    """
    values = [(reward + config.bias) * config.scale for reward in rewards if reward is not None]
    if not values:
        return [None] * len(rewards)
    mean = math.fsum(values) / len(values)
    spread = 1.0
    if config.group == "mean_std":
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) + _EPS
    return [None if reward is None else ((reward + config.bias) * config.scale - mean) / spread for reward in rewards]


def batch_normalise(groups: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Advantages of a batch shifted and scaled to mean 0 and standard deviation 1 over all valid sequences."""
    values = [value for group in groups for value in group if value is not None]
    if not values:
        return [list(group) for group in groups]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) + _EPS
    return [[None if value is None else (value - mean) / spread for value in group] for group in groups]


def batch_advantages(groups: Sequence[Rewards], config: AdvantageConfig) -> list[list[float | None]]:
    """Advantages of every sequence of a batch of groups."""
    advantages = [group_advantages(rewards, config) for rewards in groups]
    return batch_normalise(advantages) if config.batch_normalise else advantages
