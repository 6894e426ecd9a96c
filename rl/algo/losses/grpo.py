"""GRPO."""

from __future__ import annotations

from rl.algo.losses.common import clipped_surrogate, sum_of_means, token_loss
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig


def grpo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """GRPO's token-level clipped surrogate (arXiv 2402.03300, eq. 3), mean per sequence, then over sequences."""
    ratio = (inputs.current - inputs.proximal).exp()
    surrogate = clipped_surrogate(ratio, inputs.advantages, config)
    return token_loss(inputs, config, normaliser, surrogate, sum_of_means)
