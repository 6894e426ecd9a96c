"""Config of `rl eval`: one model on one dataset."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rl.config.base import Seed, StrictModel
from rl.config.data import PromptConfig
from rl.config.rollout import RewardConfig, RolloutConfig


class EvalConfig(StrictModel):
    """k completions per sample with fixed seeds."""

    command: Literal["eval"] = "eval"
    model: str
    """Folder of the model, in the layout of transformers."""
    data: str
    """Dataset in the RL-172K layout."""
    out: str
    """Folder; the result is `evals/step_000000.json` in it."""
    prompts: PromptConfig = PromptConfig()
    on_bad_row: Literal["raise", "skip"] = "raise"
    """A row that can't be used ends the command, or is left out."""
    k: int = Field(8, ge=1)
    """Completions per prompt, for mean@k and Pass@k."""
    seed: Seed = 1234
    """Of the completions: the same seed samples the same ones, as far as the engine does."""
    examples: int = Field(12, ge=0)
    """Prompts whose completions are kept in the result."""
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig = RewardConfig()
    ray_address: str | None = None
    """Cluster to join: an address, `auto`, or null for the surrounding job's cluster or else a local one."""
