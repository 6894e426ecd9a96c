"""SAPO."""

from __future__ import annotations

import torch

from rl.algo.losses.common import Surrogate, sum_of_means, token_loss
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig


def sapo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """Soft Adaptive Policy Optimization (arXiv 2511.20347): a soft gate in the place of the clip.

    f(r) = sigmoid(tau (r - 1)) * 4 / tau, with `tau_positive` for positive advantages and `tau_negative` otherwise. At
    r = 1 its slope is 1, as that of r itself; away from 1 the gradient fades on both sides. Mean per sequence, then
    over sequences; nothing is clipped, so the clip fraction is 0.
    """
    ratio = (inputs.current - inputs.proximal).exp()
    tau = torch.where(inputs.advantages > 0, config.tau_positive, config.tau_negative).to(ratio.dtype)
    gate = torch.sigmoid(tau * (ratio - 1)) * 4 / tau
    surrogate = Surrogate(gate * inputs.advantages, torch.zeros_like(ratio, dtype=torch.bool))
    return token_loss(inputs, config, normaliser, surrogate, sum_of_means)
