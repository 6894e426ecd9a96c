"""What every objective is a function of: flat token tensors of three policies, and sums over sequences.

Three policies meet in a token: behaviour (sampled it), proximal (the learner at the start of the step) and current.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


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
    reference: torch.Tensor | None = None
    """Logprobs of the frozen reference; there when the config has a KL penalty."""
    selected: torch.Tensor | None = None
    """bool [N]: tokens that entropy control chose over the whole update; there when the config has one."""


@dataclass(frozen=True, slots=True)
class LossOutput:
    """`loss` is what to differentiate; `sums` are metrics to be added over micro-batches and ranks, then divided."""

    loss: torch.Tensor
    sums: dict[str, float]


def mean_per_sequence(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """float [S]: mean over each sequence's tokens."""
    return sum_per_sequence(values, inputs) / _lengths(inputs).clamp(min=1)


def sum_per_sequence(values: torch.Tensor, inputs: LossInputs) -> torch.Tensor:
    """float [S]: sum over each sequence's tokens."""
    return values.new_zeros(inputs.sequences).index_add(0, inputs.sequence, values)


def _lengths(inputs: LossInputs) -> torch.Tensor:
    return torch.bincount(inputs.sequence, minlength=inputs.sequences).to(inputs.current.dtype)
