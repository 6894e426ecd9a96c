"""Policy losses under asynchrony: pure functions of flat token tensors.

Three policies meet in a token: behaviour (sampled it), proximal (the learner at the start of the step) and current.
The clipped ratio is current / proximal; the correction weight is proximal / behaviour (decoupled objective, as in
arXiv 2505.24298). Every loss divides by a normaliser that the caller counts over all ranks and micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rl.config.train import CorrectionConfig, LossConfig


@dataclass(frozen=True, slots=True)
class LossInputs:
    """`N` trained tokens of `S` sequences. All float32 [N] unless said otherwise; logprobs in nats.

    Example: two sequences of 3 and 2 tokens: `sequence` is [0, 0, 0, 1, 1] and `advantages` repeats each sequence's.
    """

    current: torch.Tensor
    """Carries the gradient."""
    proximal: torch.Tensor
    behaviour: torch.Tensor
    advantages: torch.Tensor
    sequence: torch.Tensor
    """int64 [N]: index of each token's sequence, 0..S-1."""
    sequences: int


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`loss` is what to differentiate; `sums` are metrics to be added over micro-batches and ranks, then divided."""

    loss: torch.Tensor
    sums: dict[str, float]


def _mean_per_sequence(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """float [S]: mean over each sequence's tokens."""
    total = values.new_zeros(inputs.sequences).index_add(0, inputs.sequence, values)
    return total / _lengths(inputs).clamp(min=1)


def _lengths(inputs: LossInputs) -> torch.Tensor:
    return torch.bincount(inputs.sequence, minlength=inputs.sequences).to(inputs.current.dtype)


def correction_weights(inputs: LossInputs, config: CorrectionConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights proximal / behaviour, float [N] without gradient, and which of them exceeded the cap, bool [N]."""
    log_ratio = (inputs.proximal - inputs.behaviour).detach()
    if config.level == "none":
        return torch.ones_like(log_ratio), torch.zeros_like(log_ratio, dtype=torch.bool)
    if config.level == "sequence":
        log_ratio = _mean_per_sequence(log_ratio, inputs)[inputs.sequence]
    weights = log_ratio.exp()
    capped = weights > config.cap
    bounded = weights.clamp(max=config.cap) if config.mode == "truncate" else weights.masked_fill(capped, 0.0)
    return bounded, capped


def gspo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 to 7).

    s = exp(mean over the sequence of (current - proximal)); each sequence contributes -min(s A, clip(s) A), averaged
    over its tokens with their correction weights. `normaliser` is the number of sequences of the whole update.
    """
    ratio_S = _mean_per_sequence(inputs.current - inputs.proximal, inputs).exp()
    advantage_S = _mean_per_sequence(inputs.advantages, inputs)
    clipped_S = ratio_S.clamp(1 - config.clip_low, 1 + config.clip_high)
    surrogate_S = torch.minimum(ratio_S * advantage_S, clipped_S * advantage_S)
    weights, capped = correction_weights(inputs, config.correction)
    loss = -(_mean_per_sequence(weights, inputs) * surrogate_S).sum() / normaliser
    is_clipped = (clipped_S * advantage_S < ratio_S * advantage_S).detach()
    return LossOutput(loss, _sums(inputs, weights, capped, is_clipped[inputs.sequence]))


def grpo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """GRPO's token-level clipped surrogate (arXiv 2402.03300, eq. 3), mean per sequence, then over sequences."""
    ratio = (inputs.current - inputs.proximal).exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    surrogate = torch.minimum(ratio * inputs.advantages, clipped * inputs.advantages)
    weights, capped = correction_weights(inputs, config.correction)
    loss = -_mean_per_sequence(weights * surrogate, inputs).sum() / normaliser
    is_clipped = (clipped * inputs.advantages < ratio * inputs.advantages).detach()
    return LossOutput(loss, _sums(inputs, weights, capped, is_clipped))


def _sums(inputs: LossInputs, weights: torch.Tensor, capped: torch.Tensor, clipped: torch.Tensor) -> dict[str, float]:
    """Sums over tokens; divide by `tokens`."""
    with torch.no_grad():
        back = inputs.behaviour - inputs.proximal
        move = inputs.proximal - inputs.current
        return {
            "tokens": float(inputs.current.numel()),
            "clip/fraction": float(clipped.float().sum()),
            "behaviour_weight/mean": float(weights.sum()),
            "behaviour_weight/capped_fraction": float(capped.float().sum()),
            # k3 estimators of KL(behaviour || proximal) and KL(proximal || current): both are >= 0 per token.
            "kl/behaviour": float((torch.exp(-back) - 1 + back).sum()),
            "kl/update": float((torch.exp(-move) - 1 + move).sum()),
        }


Loss = Callable[[LossInputs, LossConfig, float], LossOutput]

LOSSES: dict[str, Loss] = {"gspo": gspo, "grpo": grpo}
