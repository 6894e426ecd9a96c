"""What the losses share: the clipped surrogate, the terms that every token-level loss can have, and the metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rl.algo.corrections import correction_weights
from rl.algo.covariance import restrained
from rl.algo.reference import reference_kl
from rl.algo.tokens import LossInputs, LossOutput, mean_per_sequence
from rl.config.objective import LossConfig


@dataclass(frozen=True, slots=True)
class Surrogate:
    """An objective to maximise with flags of what bounded it; all of one shape, [N] or [S]."""

    objective: torch.Tensor
    clipped: torch.Tensor
    """bool: the clipped term was the smaller one."""
    dual_clipped: torch.Tensor | None = None
    """bool: the bound of dual clip was in force."""


def clip_ratio(ratio: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """The ratio within [1 - clip_low, 1 + clip_high]; a side that is null stays open."""
    low = None if config.clip_low is None else 1 - config.clip_low
    high = None if config.clip_high is None else 1 + config.clip_high
    return ratio if low is None and high is None else ratio.clamp(low, high)


def clipped_surrogate(ratio: torch.Tensor, advantages: torch.Tensor, config: LossConfig) -> Surrogate:
    """PPO's min(r A, clip(r) A) (arXiv 1707.06347), for A < 0 at least `dual_clip` * A (arXiv 1912.09729)."""
    bounded = clip_ratio(ratio, config)
    objective = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = (bounded * advantages < ratio * advantages).detach()
    if config.dual_clip is None:
        return Surrogate(objective, clipped)
    lowest = config.dual_clip * advantages
    dual_clipped = ((advantages < 0) & (objective < lowest)).detach()
    return Surrogate(torch.where(dual_clipped, lowest, objective), clipped, dual_clipped)


def sum_of_means(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """Sum over sequences of the mean over their tokens."""
    return mean_per_sequence(values, inputs).sum()


def sum_of_tokens(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """Sum over all tokens: long sequences count more."""
    return values.sum()


def token_loss(
    inputs: LossInputs,
    config: LossConfig,
    normaliser: float,
    surrogate: Surrogate,
    add_up: Callable[[torch.Tensor, LossInputs], torch.Tensor],
) -> LossOutput:
    """The loss of a token-level objective: entropy control, KL penalty and correction weights, then the sum.

    The weight of a token multiplies all of its terms, the penalties too: a token that is masked out has no part in the
    update.
    """
    weights, outside = correction_weights(inputs, config.correction)
    objective = surrogate.objective
    if config.covariance is not None:
        assert inputs.selected is not None, "the config has entropy control and the inputs lack the chosen tokens"
        objective = restrained(objective, inputs.current - inputs.proximal, inputs.selected, config.covariance)
    if config.reference is not None:
        objective = objective - config.reference.coefficient * reference_kl(inputs, config.reference)
    loss = -add_up(weights * objective, inputs) / normaliser
    return LossOutput(loss, metric_sums(inputs, config, weights, outside, surrogate))


@torch.no_grad()
def metric_sums(
    inputs: LossInputs, config: LossConfig, weights: torch.Tensor, outside: torch.Tensor, surrogate: Surrogate
) -> dict[str, float]:
    """Sums over tokens; divide by `tokens`. The surrogate's flags are [N] here."""
    back = inputs.behaviour - inputs.proximal
    move = inputs.proximal - inputs.current
    sums = {
        "tokens": float(inputs.current.numel()),
        "clip/fraction": float(surrogate.clipped.float().sum()),
        "behaviour_weight/mean": float(weights.sum()),
        "behaviour_weight/capped_fraction": float(outside.float().sum()),
        # k3 estimators of KL(behaviour || proximal) and KL(proximal || current): both are >= 0 per token.
        "kl/behaviour": float((torch.exp(-back) - 1 + back).sum()),
        "kl/update": float((torch.exp(-move) - 1 + move).sum()),
    }
    if surrogate.dual_clipped is not None:
        sums["clip/dual_fraction"] = float(surrogate.dual_clipped.float().sum())
    if config.covariance is not None and inputs.selected is not None:
        sums["covariance/selected_fraction"] = float(inputs.selected.float().sum())
    if config.reference is not None:
        sums["kl/reference"] = float(reference_kl(inputs, config.reference).sum())
    return sums
