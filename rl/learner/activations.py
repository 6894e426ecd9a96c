"""Activation checkpointing: blocks that keep their input alone for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def recompute(blocks: Iterable[nn.Module]) -> None:
    """Make each block compute its activations again in the backward pass; names and numbers stay as they are.

    transformers' own switch works in training mode alone, which a policy never is in: its dropout would change the
    logprobs of tokens that were sampled without.
    """
    from torch.distributed._composable import checkpoint

    for block in blocks:
        checkpoint(block)
