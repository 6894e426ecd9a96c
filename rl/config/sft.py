"""Config of `rl sft`: one stage of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rl.config.base import Seed, Steps, StrictModel
from rl.config.data import PromptConfig
from rl.config.learner import LearnerConfig
from rl.config.metrics import TrackerConfig


class SFTDataConfig(StrictModel):
    """Which rows a stage sees. A row's `solution` column is its target response."""

    path: str
    """Dataset in the RL-172K layout."""
    sources: tuple[str, ...] | None = None
    """Keep only these sources; all when null."""
    weights: dict[str, float] = {}
    """Relative share of each source in the batches, 1 for those not named; with no weights at all, rows count alike."""
    heldout: str | None = None
    """Dataset for the accuracy reported during training; none when null."""
    heldout_rows: int = Field(300, ge=1)
    """Rows of it that are answered at each evaluation."""
    on_bad_row: Literal["raise", "skip"] = "raise"
    """A row that can't be used ends the run, or is left out."""
    prompts: PromptConfig = PromptConfig()

    @model_validator(mode="after")
    def _weights_fit(self) -> SFTDataConfig:
        unknown = sorted(set(self.weights) - set(self.sources)) if self.sources is not None else []
        if unknown:
            raise ValueError(f"weights name {', '.join(unknown)}, which sources leave out; add them there or drop them")
        if any(weight <= 0 for weight in self.weights.values()):
            raise ValueError("weights must be above 0; leave a source out of sources instead")
        return self


class SFTConfig(StrictModel):
    """One stage; the three stages of the paper are three configs of this."""

    command: Literal["sft"] = "sft"
    model: str
    """Folder of the model to start from."""
    out: str
    """Folder of the trained model and its metrics."""
    trainable: tuple[str, ...] = Field(("all",), min_length=1)
    """What learns: all, vision, projector, language, or globs over parameter names; `!glob` takes away."""
    data: SFTDataConfig
    seed: Seed = 0
    """Of the order of rows."""
    steps: Steps
    """Optimizer steps."""
    batch_size: int = Field(64, ge=1)
    """Sequences per optimizer step, over all ranks."""
    log_every: int = Field(10, ge=1)
    """Steps between rows of metrics."""
    eval_every: int = Field(200, ge=1)
    """Steps between evaluations on `data.heldout`."""
    learner: LearnerConfig = LearnerConfig()
    tracker: TrackerConfig = TrackerConfig()

    @model_validator(mode="after")
    def _warmup_ends(self) -> SFTConfig:
        self.learner.optimizer.check_warmup(self.steps)
        return self

    @model_validator(mode="after")
    def _ranks_have_rows(self) -> SFTConfig:
        if self.batch_size < self.learner.ranks:
            raise ValueError(
                f"batch_size {self.batch_size} is below learner.ranks {self.learner.ranks}; every rank needs a "
                "sequence in every step: raise batch_size or lower learner.ranks"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_train(self) -> SFTConfig:
        if self.learner.lora is not None and self.trainable != ("all",):
            raise ValueError(
                f"with learner.lora the adapters alone learn, and trainable {list(self.trainable)} would be ignored; "
                "leave trainable out and name layers in learner.lora.targets"
            )
        return self
