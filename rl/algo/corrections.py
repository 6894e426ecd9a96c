"""Off-policy corrections: what a token counts that another policy version sampled, and proximal logprobs.

The clipped ratio of every loss is current / proximal; its weight is proximal / behaviour, bounded. That split is the
decoupled objective (arXiv 2110.00641, as used by AReaL, arXiv 2505.24298).
"""

from __future__ import annotations

import torch

from rl.algo.tokens import LossInputs, mean_per_sequence, sum_per_sequence
from rl.config.objective import CorrectionConfig


def correction_weights(inputs: LossInputs, config: CorrectionConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights proximal / behaviour, float [N] without gradient, and which of them were out of bounds, bool [N].

    A token that is masked out keeps its place in the normaliser: dropping it there would make the rest count more.
    """
    log_ratio = (inputs.proximal - inputs.behaviour).detach()
    if config.level == "none":
        return torch.ones_like(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool)
    if config.level == "sequence":
        log_ratio = mean_per_sequence(log_ratio, inputs)[inputs.sequence]
    elif config.level == "product":
        log_ratio = sum_per_sequence(log_ratio, inputs)[inputs.sequence]
    weights = log_ratio.exp()
    outside = weights > config.cap
    if config.mode == "truncate":
        return weights.clamp(max=config.cap), outside
    if config.floor is not None:
        outside = outside | (weights < config.floor)
    return weights.masked_fill(outside, 0.0), outside


def interpolated_proximal(
    current: torch.Tensor, behaviour: torch.Tensor, age: torch.Tensor, done: float
) -> torch.Tensor:
    """Proximal logprobs on the straight line from behaviour to current, float [N] without gradient.

    A token of `age` a was sampled `a` versions before the step; `done` (0 to 1) is the share of the step's updates that
    the current policy is ahead of it. The proximal policy then lies at a / (a + done) of the way in log space: at the
    first update it is the current policy, and for a token of the newest version it is the behaviour. AReaL's log-linear
    approximation (its docs, `prox_approx`) with versions that may be fractions.
    """
    distance = age + done
    share = torch.where(distance > 0, age / distance.clamp(min=torch.finfo(current.dtype).tiny), 1.0)
    return behaviour + share * (current.detach() - behaviour)
