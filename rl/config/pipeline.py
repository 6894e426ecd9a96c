"""Config of `rl pipeline`: commands that run one after the other, each in a process of its own."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rl.config.base import Seed, StrictModel
from rl.config.placeholders import RESERVED


class StepConfig(StrictModel):
    """One command with its config file."""

    run: Literal[
        "data synth",
        "model init",
        "model import",
        "sft",
        "curate",
        "curate profile",
        "curate select",
        "curate clean",
        "curate format",
        "curate recaption",
        "curate trajectories",
        "curate report",
        "train",
        "eval",
    ]
    config: str = Field(description="YAML file, relative to the pipeline file.")
    set: dict[str, Any] = Field(default={}, description="Dotted keys to set in that file, as on the command line.")
    name: str = Field(default="", description="What `--from` and `--until` call the step; the file's stem by default.")

    @property
    def title(self) -> str:
        """The step's name."""
        return self.name or PurePath(self.config).stem


class PipelineConfig(StrictModel):
    """Steps in order. `{out}`, `{seed}` and the names in `vars` are filled in the step files and in `set`."""

    command: Literal["pipeline"] = "pipeline"
    out: str = Field(description="Folder of the whole pipeline; `{out}` in the steps.")
    seed: Seed = Field(default=0, description="`{seed}` in the steps.")
    vars: dict[str, str | int | float | bool] = {}
    """Names of the file's own, such as the quickstart's `backend`: `vars.backend=sglang` sets it in all steps."""
    steps: tuple[StepConfig, ...] = Field(min_length=1)

    @field_validator("vars")
    @classmethod
    def _vars_are_names(cls, names: dict[str, Any]) -> dict[str, Any]:
        for name in names:
            if name in RESERVED:
                raise ValueError(f"{name!r} is set by the pipeline itself; use the key {name} beside vars")
            if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
                raise ValueError(f"{name!r} can't be a name; use lower-case letters, digits and underscores")
        return names

    @model_validator(mode="after")
    def _titles_differ(self) -> PipelineConfig:
        titles = [step.title for step in self.steps]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"steps are named {', '.join(twice)} more than once; give each a `name` of its own")
        bad = [title for title in titles if not re.fullmatch(r"[\w.-]+", title)]
        if bad:
            raise ValueError(f"step name {bad[0]!r} becomes a file name; use letters, digits, '.', '_' and '-'")
        return self
