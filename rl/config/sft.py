"""Config of `rl sft`: one stage of supervised fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl.config.base import Seed, Steps, StrictModel
from rl.config.checkpoint import CheckpointConfig
from rl.config.data import PromptConfig
from rl.config.learner import LearnerConfig
from rl.config.metrics import TrackerConfig
from rl.config.placement import PlacedConfig

Layout = Literal["auto", "rl172k", "llava", "sharegpt", "messages"]
"""As in `rl.data.conversations`."""
Weight = Annotated[float, Field(ge=1e-9, le=1e9)]


class SFTPartConfig(StrictModel):
    """One dataset of a mixture."""

    path: str
    """Parquet, JSONL or JSON file, folder of parquet or of JSONL files, or folder of `datasets.save_to_disk`."""
    name: str | None = Field(None, min_length=1)
    """In metrics; by default the last part of the path."""
    layout: Layout = "auto"
    """What its rows look like; `auto` looks at each row's columns."""
    images: str | None = None
    """Folder from which paths of images start; that of the row's file when null."""
    sources: tuple[str, ...] | None = None
    """Keep only rows with these values of the column `source`; all when null."""
    weight: Weight = 1.0
    """Relative share of the rows of a batch."""
    at_end: Literal["repeat", "stop"] = "repeat"
    """When all rows were trained: go through them again in another order, or end the run."""


class SFTDataConfig(StrictModel):
    """Which rows a stage sees: of one dataset (`path`) or several (`mix`)."""

    path: str | None = None
    """As in `mix`; for a single dataset."""
    mix: tuple[SFTPartConfig, ...] = ()
    """Several datasets with their shares."""
    layout: Layout = "auto"
    """As in `mix`."""
    images: str | None = None
    """As in `mix`."""
    sources: tuple[str, ...] | None = None
    """As in `mix`."""
    weights: dict[str, Weight] = {}
    """Relative share of each value of the column `source` in the batches, 1 for those not named; with no weights at
    all, rows count alike. Each goes through epochs of its own."""
    at_end: Literal["repeat", "stop"] = "repeat"
    """As in `mix`."""
    shuffle_rows: int = Field(4096, ge=1)
    """Rows in memory at once, images still encoded, and so how far a row may move among its neighbours; blocks of rows
    are shuffled over the whole dataset besides. Sources share them by weight."""
    image_cache_mib: float = Field(256, ge=0)
    """Memory of each rank for processed images, which makes another epoch of a small set cheaper."""
    heldout: str | None = None
    """Dataset for the accuracy reported during training; none when null."""
    heldout_rows: int = Field(300, ge=1)
    """Rows of it that are answered at each evaluation."""
    on_bad_row: Literal["raise", "skip"] = "raise"
    """A row that can't be used ends the run, or is left out and written down in skipped_rows.jsonl."""
    prompts: PromptConfig = PromptConfig()

    @model_validator(mode="after")
    def _one_way_to_name_data(self) -> SFTDataConfig:
        if (self.path is None) == (not self.mix):
            raise ValueError("give either path, for one dataset, or mix, for several")
        if self.mix:
            alone = ("layout", "images", "sources", "weights", "at_end")
            given = [name for name in alone if getattr(self, name) != type(self).model_fields[name].default]
            if given:
                raise ValueError(f"with mix, {', '.join(given)} would be ignored; set it in the parts of mix")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> SFTDataConfig:
        unknown = sorted(set(self.weights) - set(self.sources)) if self.sources is not None else []
        if unknown:
            raise ValueError(f"weights name {', '.join(unknown)}, which sources leave out; add them there or drop them")
        return self

    def parts(self) -> tuple[SFTPartConfig, ...]:
        """The datasets, `path` as the only one."""
        if self.path is None:
            return self.mix
        names = ("path", "layout", "images", "sources", "at_end")
        return (SFTPartConfig(**{name: getattr(self, name) for name in names}),)


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
    """Optimizer steps; fewer are made when a source with `at_end: stop` has been gone through."""
    batch_size: int = Field(64, ge=1)
    """Sequences per optimizer step, over all ranks."""
    log_every: int = Field(10, ge=1)
    """Steps between rows of metrics."""
    eval_every: int = Field(200, ge=1)
    """Steps between evaluations on `data.heldout`."""
    learner: LearnerConfig = LearnerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
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
        self.learner.check_trainable(self.trainable)
        return self

    @model_validator(mode="after")
    def _no_actors(self) -> SFTConfig:
        default = LearnerConfig()
        for name in ("faults", *PlacedConfig.model_fields):
            if getattr(self.learner, name) != getattr(default, name):
                raise ValueError(
                    f"learner.{name} is for actors of a Ray cluster, and `rl sft` starts its ranks on this machine "
                    "without Ray, so it would be ignored; leave it out"
                )
        return self
