"""What a user of the project would write: a loss and advantages of their own."""

from __future__ import annotations

from collections.abc import Sequence

from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import AdvantageConfig, LossConfig


def reinforce(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """-scale * A * logprob, with no metrics of its own."""
    scale = float(config.options.get("scale", 1.0))
    return LossOutput(-scale * (inputs.advantages * inputs.current).sum() / normaliser, {})


def above_median(rewards: list[float], config: AdvantageConfig) -> Sequence[float]:
    middle = sorted(rewards)[len(rewards) // 2]
    return [1.0 if reward > middle else -1.0 for reward in rewards]


def too_few(rewards: list[float], config: AdvantageConfig) -> Sequence[float]:
    return rewards[1:]


def not_finite(rewards: list[float], config: AdvantageConfig) -> Sequence[float]:
    return [float("nan")] * len(rewards)


NOT_A_FUNCTION = 3
