"""DAPO."""

from __future__ import annotations

from rl.algo.losses.common import clipped_surrogate, sum_of_tokens, token_loss
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig


def dapo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """The clipped surrogate averaged over all tokens of the update (arXiv 2503.14476, eq. 8).

    `normaliser` is the number of tokens. Clip-higher is `clip_high` above `clip_low`; dynamic sampling and the overlong
    punishment are filters (`rl.algo.filters`).
    """
    ratio = (inputs.current - inputs.proximal).exp()
    surrogate = clipped_surrogate(ratio, inputs.advantages, config)
    return token_loss(inputs, config, normaliser, surrogate, sum_of_tokens)
