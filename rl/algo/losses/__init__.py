"""Policy losses: pure functions of flat token tensors, one file each.

Every loss divides by a normaliser that the caller counts over all micro-batches and ranks, so neither changes an
update.
"""

from __future__ import annotations

from collections.abc import Callable

from rl.algo.losses.cispo import cispo
from rl.algo.losses.dapo import dapo
from rl.algo.losses.dr_grpo import dr_grpo
from rl.algo.losses.grpo import grpo
from rl.algo.losses.gspo import gspo
from rl.algo.losses.gspo_token import gspo_token
from rl.algo.losses.sapo import sapo
from rl.algo.plugins import load_function
from rl.algo.tokens import LossInputs, LossOutput
from rl.config.objective import LossConfig, Normaliser

Loss = Callable[[LossInputs, LossConfig, float], LossOutput]
"""Inputs of one micro-batch, the config and the normaliser of the whole update. `sums` holds sums over tokens; a user
loss may leave it empty."""

LOSSES: dict[str, Loss] = {
    "cispo": cispo,
    "dapo": dapo,
    "dr_grpo": dr_grpo,
    "grpo": grpo,
    "gspo": gspo,
    "gspo_token": gspo_token,
    "sapo": sapo,
}

NORMALISERS: dict[str, Normaliser] = {
    "cispo": "tokens",
    "dapo": "tokens",
    "dr_grpo": "constant",
    "grpo": "sequences",
    "gspo": "sequences",
    "gspo_token": "sequences",
    "sapo": "sequences",
}
"""What the caller counts: sequences or tokens of the update, or sequences times a constant length."""


def load_loss(config: LossConfig) -> tuple[Loss, Normaliser]:
    """The configured loss and what its normaliser counts.

    Raises:
        ConfigError: a user loss can't be imported.
    """
    if not config.is_user_loss:
        return LOSSES[config.name], NORMALISERS[config.name]
    assert config.normaliser is not None, "the config requires it of user losses"
    return load_function(config.name, "loss"), config.normaliser


__all__ = ["LOSSES", "NORMALISERS", "Loss", "LossInputs", "LossOutput", "grpo", "gspo", "load_loss"]
