"""One optimizer step over micro-batches, shared by SFT and RL: accumulate, clip, step, refuse non-finite numbers.

The loss function returns a sum already divided by a global normaliser, so neither the number of micro-batches nor the
number of ranks changes the update.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

import torch

from rl.batch.sequences import MicroBatch
from rl.errors import DivergenceError
from rl.learner.ranks import most_over_ranks
from rl.learner.strategy import Strategy
from rl.models.policy import TokenScores

logger = logging.getLogger(__name__)

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
    strategy.begin()
    total = 0.0
    for i in range(rounds):
        if i < len(batches):
            loss = loss_fn(batches[i], policy(batches[i], temperature, sampled))
            total += loss.item()
        else:
            loss = policy(batches[-1], temperature, sampled).logprobs.sum() * 0.0
        last = i == rounds - 1
        if last and not math.isfinite(total):
            loss = loss * math.nan  # the norm, which all ranks share, tells the others
        strategy.backward(loss, last)
    norm = strategy.finish(clip_norm)
    if not math.isfinite(norm):
        raise DivergenceError(
            f"loss {total}, gradient norm {norm}: on some rank not finite, so the update was not made; lower the "
            "learning rate, resume from the last checkpoint, or allow learner.optimizer.max_skipped_in_a_row"
        )
    return total, norm


class Skips:
    """Updates with numbers that are not finite, left out up to a limit in a row. All ranks decide alike."""

    def __init__(self, allowed: int) -> None:
        self.allowed, self._in_a_row = allowed, 0

    def made(self) -> None:
        """An update was made."""
        self._in_a_row = 0

    def left_out(self, cause: DivergenceError) -> None:
        """An update was not made. Raises `cause` when that is one too many."""
        self._in_a_row += 1
        if self._in_a_row > self.allowed:
            raise cause
        logger.warning("update left out (%d in a row, %d allowed): %s", self._in_a_row, self.allowed, cause)
