"""The optimizer over the parameters that learn, and its learning rate over the updates."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from rl.config.learner import OptimizerConfig
from rl.learner.muon import MuonAdamW


def make_optimizer(policy: nn.Module, config: OptimizerConfig, total_steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """The optimizer over the trained parameters and its learning-rate schedule."""
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    optimizer: torch.optim.AdamW
    if config.name == "muon":
        # A row of an embedding is a vector by itself: it gets AdamW, as do norms, biases and the patch convolution.
        matrices = {name: p for name, p in trained.items() if p.dim() == 2 and not _is_embedding(name)}
        optimizer = MuonAdamW(
            matrices.values(),
            [p for name, p in trained.items() if name not in matrices],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
        )
    else:
        optimizer = torch.optim.AdamW(
            trained.values(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, config))


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head"))


def lr_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Share of the base learning rate at optimizer step `step`, counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * shape
