"""What the learner asks of the library that spreads a policy over its ranks.

The step, the actor, supervised fine-tuning, export and checkpoints know this interface and no library behind it. Every
method is collective: all ranks call it at the same point.
"""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LambdaLR

from rl.config.learner import LearnerConfig
from rl.models.policy import Policy


class Strategy(Protocol):
    """A policy with its optimizer, spread over the ranks."""

    policy: Policy
    """What to call for a forward pass, with or without gradient."""
    optimizer: torch.optim.Optimizer
    """Over the trained parameters only."""
    schedule: LambdaLR
    """Moves with every update that is made."""

    def begin(self) -> None:
        """Before the first micro-batch of an update: no gradients are left from another."""

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Add the gradients of one micro-batch: the sum over ranks of d loss, not the mean.

        Args:
            last: this is the update's last micro-batch; gradients may travel between ranks now.
        """

    def finish(self, clip_norm: float) -> float:
        """Scale the gradient to a norm of at most `clip_norm` and update parameters and schedule.

        Returns:
            The 2-norm of the gradient before clipping, over all parameters and ranks. If it is not finite, no update is
            made: parameters, optimizer and schedule are as before, and the gradients are forgotten.
        """

    def full_tensors(self) -> dict[str, torch.Tensor]:
        """Every parameter, whole, under its name inside the Hugging Face model, in host memory; empty but on rank 0."""

    def save(self, folder: Path, version: int, background: bool = False) -> Future[Any]:
        """Write trained parameters, optimizer, schedule and random state below `folder`.

        With `background` it returns when training may go on; the result says when the files are complete.
        """

    def load(self, folder: Path) -> int:
        """Restore what `save` wrote, by any number of ranks, and return its version.

        Parameters, momenta, the place in the schedule and random state come from the folder; rates, betas and weight
        decay stay those of this run's config. See `rl.learner.checkpoint.read` for what is raised.
        """


def make_strategy(
    policy: Policy, config: LearnerConfig, total_steps: int, device: torch.device, source: Policy | None = None
) -> Strategy:
    """Spread the policy over the ranks, and make the optimizer of what it has to train for `total_steps` updates.

    Args:
        source: where rank 0 takes the numbers of a policy on the meta device from.
    """
    if config.strategy == "deepspeed":
        from rl.learner.zero import Zero

        return Zero(policy, config, total_steps, device)
    from rl.learner.fsdp import Fsdp2

    return Fsdp2(policy, config, total_steps, device, source)
