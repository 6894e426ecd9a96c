"""Config of `rl curate`: attempts of the SFT policy at each candidate, and the rule that keeps some."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import StrictModel
from rl.config.data import PromptConfig
from rl.config.rollout import RewardConfig, RolloutConfig


class RewardBand(StrictModel):
    """Mean reward must lie strictly between the two."""

    above: float = 0.0
    below: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> RewardBand:
        if self.above >= self.below:
            raise ValueError(f"the band above {self.above} and below {self.below} is empty; set above < below")
        return self


class SelectConfig(StrictModel):
    """The discrepancy rule of Innovator-VL: the policy can (Pass@k high) but rarely does (Pass@1 low)."""

    pass_k: int = Field(8, ge=1)
    """k of the high side; at most the number of attempts."""
    min_pass_at_k: float = Field(0.5, ge=0, le=1)
    max_pass_at_1: float = Field(0.75, ge=0, le=1)
    band: RewardBand = RewardBand()
    bands: dict[str, RewardBand] = {}
    """Bands of single sources, in place of `band`."""


class CurateConfig(StrictModel):
    """Attempts, scores and selection."""

    command: Literal["curate"] = "curate"
    model: str
    candidates: str
    out: str
    """Folder for attempts, candidates, plot and the selected set `rl_set.parquet`."""
    prompts: PromptConfig = PromptConfig()
    on_bad_row: Literal["raise", "skip"] = "raise"
    attempts: int = Field(8, ge=1)
    seed: int = 0
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig = RewardConfig()
    select: SelectConfig = SelectConfig()
    ray_address: str | None = None

    @model_validator(mode="after")
    def _enough_attempts(self) -> CurateConfig:
        if self.select.pass_k > self.attempts:
            raise ValueError(f"select.pass_k {self.select.pass_k} needs at least as many attempts, not {self.attempts}")
        return self
