"""Group-relative advantages; failed graders are masked out of every statistic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rl.algo.plugins import load_function
from rl.config.objective import AdvantageConfig
from rl.errors import ConfigError

_EPS = 1e-6

Rewards = Sequence[float | None]
GroupFunction = Callable[[list[float], AdvantageConfig], Sequence[float]]
"""Rewards of one group, without failed ones and after bias and scale, to as many advantages."""


def mean_std(values: list[float], config: AdvantageConfig) -> list[float]:
    """(r - mean) / (population standard deviation + 1e-6) (GRPO, arXiv 2402.03300)."""
    mean = _mean(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) + _EPS
    return [(value - mean) / spread for value in values]


def mean_only(values: list[float], config: AdvantageConfig) -> list[float]:
    """r - mean (Dr. GRPO, arXiv 2503.20783)."""
    mean = _mean(values)
    return [value - mean for value in values]


def rloo(values: list[float], config: AdvantageConfig) -> list[float]:
    """r - mean of the others (arXiv 2402.14740), which is n / (n - 1) * (r - mean); 0 where there are no others."""
    if len(values) == 1:
        return [0.0]
    total = math.fsum(values)
    return [value - (total - value) / (len(values) - 1) for value in values]


GROUP_FUNCTIONS: dict[str, GroupFunction] = {"mean": mean_only, "mean_std": mean_std, "rloo": rloo}


def load_group_function(config: AdvantageConfig) -> GroupFunction:
    """The configured way from a group's rewards to its advantages.

    Raises:
        ConfigError: user code that can't be imported.
    """
    if ":" not in config.group:
        return GROUP_FUNCTIONS[config.group]
    return load_function(config.group, "advantages")


def group_advantages(rewards: Rewards, config: AdvantageConfig) -> list[float | None]:
    """Advantages of one group; None where the reward is None.

    Raises:
        ConfigError: user code that can't be imported, or returned something else than a finite number per reward.
    """
    values = [(reward + config.bias) * config.scale for reward in rewards if reward is not None]
    if not values:
        return [None] * len(rewards)
    advantages = list(load_group_function(config)(values, config))
    if len(advantages) != len(values) or not all(math.isfinite(value) for value in advantages):
        raise ConfigError(
            f"advantages {config.group!r} made {advantages!r:.200} of the {len(values)} rewards {values!r:.200}; it "
            "must return one finite number for each"
        )
    rest = iter(advantages)
    return [None if reward is None else float(next(rest)) for reward in rewards]


def batch_normalise(groups: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Advantages of a batch shifted and scaled to mean 0 and standard deviation 1 over all valid sequences."""
    values = [value for group in groups for value in group if value is not None]
    if not values:
        return [list(group) for group in groups]
    mean = _mean(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)) + _EPS
    return [[None if value is None else (value - mean) / spread for value in group] for group in groups]


def batch_advantages(groups: Sequence[Rewards], config: AdvantageConfig) -> list[list[float | None]]:
    """Advantages of every sequence of a batch of groups."""
    advantages = [group_advantages(rewards, config) for rewards in groups]
    return batch_normalise(advantages) if config.batch_normalise else advantages


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
