"""One optimizer step over micro-batches, shared by SFT and RL: accumulate, clip, step, refuse non-finite numbers.

The loss function returns a sum already divided by a global normaliser, so neither the number of micro-batches nor the
number of ranks changes the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from rl.batch.sequences import MicroBatch
from rl.errors import DivergenceError
from rl.learner.ranks import finite_everywhere, most_over_ranks
from rl.learner.strategy import Strategy
from rl.models.policy import TokenScores

LossFn = Callable[[MicroBatch, TokenScores], torch.Tensor]


def optimizer_step(
    strategy: Strategy,
    batches: Sequence[MicroBatch],
    loss_fn: LossFn,
    clip_norm: float,
    temperature: float = 1.0,
    sampled: bool = False,
) -> tuple[float, float]:
    """Returns (this rank's share of the loss, global gradient norm before clipping).

    Ranks may hold different numbers of micro-batches: forward and backward hold collectives, so ranks
    with fewer repeat their last one without weight.

    Raises:
        DivergenceError: the loss or the gradient norm is not finite on some rank; parameters and optimizer are left as
            they were on all.
        DataError: a rank has no micro-batch.
    """
    policy = strategy.policy
    rounds = most_over_ranks(len(batches))
    strategy.zero_grad()
    total = 0.0
    for i in range(rounds):
        if i < len(batches):
            loss = loss_fn(batches[i], policy(batches[i], temperature, sampled))
            total += loss.item()
        else:
            loss = policy(batches[-1], temperature, sampled).logprobs.sum() * 0.0
        strategy.backward(loss, last=i == rounds - 1)
    norm = strategy.gradient_norm()
    if not finite_everywhere(math.isfinite(norm) and math.isfinite(total)):
        strategy.zero_grad()
        raise DivergenceError(
            f"loss {total}, gradient norm {norm}: on some rank not finite, so the update was not made; lower the "
            "learning rate, or resume from the last checkpoint"
        )
    strategy.step(norm, clip_norm)
    return total, norm
