"""Config of `rl eval`: one model on one dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rl.config.base import StrictModel
from rl.config.data import PromptConfig
from rl.config.rollout import RewardConfig, RolloutConfig


class EvalConfig(StrictModel):
    """k completions per sample with fixed seeds."""

    command: Literal["eval"] = "eval"
    model: str
    data: str
    out: str
    """Folder; the result is `evals/step_000000.json` in it."""
    prompts: PromptConfig = PromptConfig()
    on_bad_row: Literal["raise", "skip"] = "raise"
    k: int = Field(8, ge=1)
    seed: int = 1234
    examples: int = Field(12, ge=0)
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig = RewardConfig()
    ray_address: str | None = None
