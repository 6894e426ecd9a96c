"""Dr. GRPO."""

from __future__ import annotations

from rl.algo.losses.common import clipped_surrogate, sum_of_tokens, token_loss
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig


def dr_grpo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """GRPO without the division by a response's length (arXiv 2503.20783): tokens of long responses count as much.

    `normaliser` is the number of sequences times a constant length, so that a step's size does not depend on how long
    the responses happen to be. The paper also drops the standard deviation: use it with `advantages.group: mean`.
    """
    ratio = (inputs.current - inputs.proximal).exp()
    surrogate = clipped_surrogate(ratio, inputs.advantages, config)
    return token_loss(inputs, config, normaliser, surrogate, sum_of_tokens)
