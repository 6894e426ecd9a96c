"""One optimizer step over micro-batches, shared by SFT and RL: accumulate, clip, step, refuse non-finite numbers.

The loss function returns a sum already divided by a global normaliser, so neither the number of micro-batches nor the
number of ranks changes the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.optim.lr_scheduler import LambdaLR

from rl.batch.sequences import MicroBatch
from rl.errors import DivergenceError
from rl.learner.fsdp import clip_gradients
from rl.models.policy import Policy, TokenScores

LossFn = Callable[[MicroBatch, TokenScores], torch.Tensor]


def optimizer_step(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    batches: Sequence[MicroBatch],
    loss_fn: LossFn,
    clip_norm: float,
    temperature: float = 1.0,
    sampled: bool = False,
) -> tuple[float, float]:
    """Returns (this rank's share of the loss, global gradient norm before clipping).

    Ranks may hold different numbers of micro-batches: forward and backward hold collectives, so ranks
    with fewer repeat their last one without weight. Every rank needs at least one.

    Raises:
        DivergenceError: the loss or the gradient norm is not finite; parameters are left as they were.
    """
    assert isinstance(policy, FSDPModule), "shard the policy first"
    world_size = dist.get_world_size()
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    rounds = most_over_ranks(len(batches))
    for i in range(rounds):
        policy.set_requires_gradient_sync(i == rounds - 1)
        if i < len(batches):
            loss = loss_fn(batches[i], policy(batches[i], temperature, sampled))
            total += loss.item()
        else:
            loss = policy(batches[-1], temperature, sampled).logprobs.sum() * 0.0
        # FSDP averages gradients over ranks; the loss is already normalised globally, so undo the mean.
        (loss * world_size).backward()
    _fill_missing_gradients(policy)
    norm = clip_gradients(policy, clip_norm)
    if not math.isfinite(norm) or not math.isfinite(total):
        optimizer.zero_grad(set_to_none=True)
        raise DivergenceError(
            f"loss {total} and gradient norm {norm} are not finite, so the update was not made; lower the learning "
            "rate, or resume from the last checkpoint"
        )
    optimizer.step()
    schedule.step()
    return total, norm


def _fill_missing_gradients(policy: Policy) -> None:
    """Give parameters that no micro-batch used, as the vision tower without images, the zero gradient that they have.

    Optimizers pass over a missing gradient but go on with their momentum under a zero one. With several ranks the tower
    always runs and has zeros, so without this the update would depend on the number of ranks.
    """
    for parameter in policy.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def most_over_ranks(count: int) -> int:
    """The largest number of micro-batches of any rank. Every rank must have at least one."""
    assert count > 0, "a rank without a micro-batch can't take part in the collectives of a step"
    if dist.get_world_size() == 1:
        return count
    tensor = torch.tensor(count, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return int(tensor)
