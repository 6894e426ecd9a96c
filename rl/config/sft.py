"""Config of `rl sft`: one stage of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rl.config.base import StrictModel
from rl.config.data import PromptConfig
from rl.config.learner import LearnerConfig
from rl.config.metrics import TrackerConfig


class SFTDataConfig(StrictModel):
    """Which rows a stage sees. A row's `solution` column is its target response."""

    path: str
    sources: tuple[str, ...] | None = None
    """Keep only these sources; all when null."""
    heldout: str | None = None
    """Dataset for the accuracy reported during training; none when null."""
    heldout_rows: int = Field(300, ge=1)
    on_bad_row: Literal["raise", "skip"] = "raise"
    prompts: PromptConfig = PromptConfig()


class SFTConfig(StrictModel):
    """One stage; the three stages of the paper are three configs of this."""

    command: Literal["sft"] = "sft"
    model: str
    out: str
    trainable: tuple[str, ...] = ("all",)
    """Module groups that learn: all, vision, projector, language."""
    data: SFTDataConfig
    seed: int = 0
    steps: int = Field(ge=1)
    batch_size: int = Field(64, ge=1)
    """Sequences per optimizer step, over all ranks."""
    log_every: int = Field(10, ge=1)
    eval_every: int = Field(200, ge=1)
    learner: LearnerConfig = LearnerConfig()
    tracker: TrackerConfig = TrackerConfig()
