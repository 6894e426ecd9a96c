"""Making micro-batches with and without images run the same modules, since the modules hold collectives."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from rl.models.policy import Policy


def match_collectives(policy: Policy) -> None:
    """Make every micro-batch, with an image or without, run the same modules forward and backward on all ranks."""
    trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
    in_tower = ["visual." in name for name in trained]
    several = dist.get_world_size() > 1
    # On one rank, too, a batch without an image has nothing to differentiate where only the tower learns.
    policy.vision_always = several or (bool(trained) and all(in_tower))
    if several and any(in_tower):
        # From an image gradients pass through the whole language model, frozen or not; so they must from text.
        policy.model.get_input_embeddings().register_forward_hook(_require_grad)


def _require_grad(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output if output.requires_grad or not torch.is_grad_enabled() else output.requires_grad_()
