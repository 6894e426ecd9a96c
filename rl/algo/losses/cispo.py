"""CISPO."""

from __future__ import annotations

from rl.algo.losses.common import Surrogate, clip_ratio, sum_of_tokens, token_loss
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig


def cispo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """Clipped importance-sampling weights (arXiv 2506.13585, eq. 4 and 5): sg[clip(r)] * A * current, mean over tokens.

    The clip bounds how much a token counts and never silences it. The paper leaves the lower side open
    (`clip_low: null`). `clip/fraction` counts the ratios that were clipped, whatever the advantage's sign.
    """
    ratio = (inputs.current - inputs.proximal).exp().detach()
    bounded = clip_ratio(ratio, config)
    surrogate = Surrogate(bounded * inputs.advantages * inputs.current, bounded != ratio)
    return token_loss(inputs, config, normaliser, surrogate, sum_of_tokens)
