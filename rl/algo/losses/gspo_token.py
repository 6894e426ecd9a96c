"""GSPO-token."""

from __future__ import annotations

from rl.algo.losses.common import clipped_surrogate, sum_of_means, token_loss
from rl.algo.tokens import LossInputs, LossOutput, mean_per_sequence
from rl.config.objective import LossConfig


def gspo_token(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """GSPO with an advantage, a correction weight and penalties per token (arXiv 2507.18071, eq. 13 and 14).

    The value of each token's ratio is its sequence's s, and its gradient that of its own logprob:
    sg[s] * current / sg[current]. With equal advantages and weights inside a sequence it is GSPO, gradient included.
    """
    log_s = mean_per_sequence(inputs.current - inputs.proximal, inputs).detach()[inputs.sequence]
    ratio = (log_s + inputs.current - inputs.current.detach()).exp()
    surrogate = clipped_surrogate(ratio, inputs.advantages, config)
    return token_loss(inputs, config, normaliser, surrogate, sum_of_means)
