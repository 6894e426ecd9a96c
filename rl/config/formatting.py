"""Config of `rl curate format`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rl.config.base import StrictModel
from rl.config.data import PromptConfig

Form = Literal["think", "normal"]
"""`think` asks for reasoning before the answer, `normal` for the answer alone."""


class UnifyConfig(StrictModel):
    """One reasoning format for rows of many origins: what a problem says about the form of its answer goes, the run's
    own instruction takes its place; answers stand bare, solutions as `<think>...</think><answer>...</answer>`."""

    instructions: bool = True
    """Take instructions such as "put your final answer in \\boxed{}" off the ends of problems; one that asks for the
    answer alone makes the row `normal`, one that asks for reasoning `think`."""
    think_patterns: tuple[str, ...] = ()
    """Further regular expressions of whole instructions, case ignored."""
    normal_patterns: tuple[str, ...] = ()
    """The same for instructions that ask for the answer alone."""
    form: Literal["keep"] | Form = "keep"
    """Form of all rows; `keep` leaves each its own."""
    forms: dict[str, Form] = {}
    """Form by problem type, before `form`."""
    answers: bool = True
    """Take boxes and answer tags off gold answers."""
    solutions: bool = True
    """Bring the column `solution` into the form that the row asks for."""

    @field_validator("think_patterns", "normal_patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as exc:
                raise ValueError(f"{pattern!r} is no regular expression: {exc}") from exc
        return patterns


class FormatConfig(StrictModel):
    """Rows of one layout into shards of another, in one reasoning format."""

    command: Literal["curate-format"] = "curate-format"
    data: str
    """Dataset to read."""
    read_as: Literal["rl172k", "jsonl", "verl", "trl", "virl39k"] = "rl172k"
    """Its layout."""
    write_as: Literal["rl172k", "verl", "trl"] = "rl172k"
    """Layout of the shards."""
    out: str
    """Folder for the shards `data/`, `format.json` and the manifest."""
    shard_rows: int = Field(50_000, ge=1)
    """Rows per file."""
    unify: UnifyConfig | None = UnifyConfig()
    """Null writes the rows as they are."""
    prompts: PromptConfig = PromptConfig()
    """The instructions that are written into verl and TRL prompts, and that are known again when they are read."""
    instruct: bool = True
    """Whether verl and TRL prompts end in the instruction; their trainers add none of their own."""
    split: str = "train"
    """Said in verl's `extra_info`."""
    on_bad_row: Literal["raise", "skip"] = "raise"
    """A row that can't be used ends the command, or is left out."""

    @model_validator(mode="after")
    def _instruction_has_a_place(self) -> FormatConfig:
        if self.write_as == "rl172k" and not self.instruct:
            raise ValueError("instruct has no part in rl172k, where the run adds the instruction; remove it")
        return self
