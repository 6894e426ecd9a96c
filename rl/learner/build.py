"""From a model folder and a config to the learner's strategy: load, freeze or adapt, save memory, spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from rl.config.learner import LearnerConfig
from rl.learner.strategy import Strategy, make_strategy
from rl.models.freeze import set_trainable
from rl.models.lora import add_adapters
from rl.models.policy import Policy, load_policy, skeleton


def build_strategy(
    path: str | Path, trainable: Sequence[str], config: LearnerConfig, total_steps: int, device: torch.device
) -> tuple[Strategy, int]:
    """Returns the strategy over the model at `path` and the number of parameters that learn. Collective.

    Raises:
        ConfigError: no such model, or `trainable` or `config.lora` name nothing in it.
    """
    policy, source = load(path, config)
    trained = 0
    for model in (source, policy):  # what is drawn for the one with numbers is drawn first, as without the other
        if model is not None:
            trained = prepare_training(model, trainable, config)
    return make_strategy(policy, config, total_steps, device, source), trained


def load(path: str | Path, config: LearnerConfig) -> tuple[Policy, Policy | None]:
    """The model that this rank will spread; on the meta device rank 0 has beside it the one with the numbers."""
    logits = config.logits
    if not config.fsdp.meta_init:
        return load_policy(path, logits=logits), None
    return skeleton(path, logits=logits), load_policy(path, logits=logits) if dist.get_rank() == 0 else None


def prepare_training(policy: Policy, trainable: Sequence[str], config: LearnerConfig) -> int:
    """Choose what learns; returns the number of its parameters."""
    return set_trainable(policy, trainable) if config.lora is None else add_adapters(policy, config.lora)
