"""Configs of the data layer: the synthetic datasets and the prompt that a sample is rendered into."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from rl.config.base import Seed, StrictModel

Source = Literal["counting", "grounding", "spatial", "chart", "molecule", "arithmetic", "caption"]
"""The synthetic task families, as in `rl.data.synth.TASKS`."""

Pool = Literal["train", "heldout", "eval"]
"""Parts of the space of scenes that never share one, as in `rl.data.synth.POOLS`."""


PlantKind = Literal[
    "exact_duplicate",
    "near_duplicate",
    "conflicting_answers",
    "leaked",
    "broken_image",
    "blank_image",
    "bad_gold",
    "wrong_gold",
    "guessable",
    "bad_row",
]
"""Faults that can be planted, as in `rl.data.synth.plant`."""


class SplitConfig(StrictModel):
    """One split: how many rows of each family, and from which pool of scenes."""

    count: dict[Source, NonNegativeInt]
    """Rows by family."""
    pool: Pool | None = Field(default=None, description="Where the scenes come from; by default the split's own name.")
    plant: dict[PlantKind, NonNegativeInt] = Field(
        default={}, description="Rows with faults to add, to try a cleaning on; they name their kind in data_source."
    )
    leak_from: str | None = Field(default=None, description="Earlier split whose rows `leaked` repeats.")


class SynthConfig(StrictModel):
    """What `rl data synth` writes: `{out}/{split}.parquet`, the same bytes for the same config."""

    command: Literal["data-synth"] = "data-synth"
    seed: Seed = 0
    """The same seed writes the same bytes."""
    out: str = Field(description="Folder for the parquet files.")
    image_size: int = Field(default=64, ge=32, le=1024, description="Side of the square pictures in pixels.")
    splits: dict[str, SplitConfig]
    shard_rows: PositiveInt = Field(default=50_000, description="Rows per file; a longer split becomes several files.")

    @field_validator("splits")
    @classmethod
    def _splits_are_usable(cls, splits: dict[str, SplitConfig]) -> dict[str, SplitConfig]:
        for name, split in splits.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"split name {name!r} becomes a file name; use letters, digits, '-' and '_'")
            if split.pool is None and name not in ("train", "heldout", "eval"):
                raise ValueError(f"split {name!r} is not named after a pool; set its pool to train, heldout or eval")
            earlier = list(splits)[: list(splits).index(name)]
            if split.plant.get("leaked") and split.leak_from not in earlier:
                raise ValueError(f"split {name!r} plants leaks; set leak_from to a split that stands before it")
            if not any(split.count.values()):
                raise ValueError(f"split {name!r} asks for no rows; set count to rows per family")
        return splits


class PromptConfig(StrictModel):
    """How a sample's question becomes the prompt; the instructions follow the question, an empty one adds nothing."""

    think: str = (
        "Think step by step first. Put your reasoning inside <think></think>, then put ONLY the final answer inside "
        "<answer></answer>."
    )
    """Instruction for rows whose `prompt_type` asks for reasoning."""
    normal: str = "Put ONLY the final answer inside <answer></answer>, without any reasoning."
    """Instruction for rows that ask for the answer alone."""
    spatial: str = Field(
        default="Begin the reasoning with the coordinates of each object that the question names.",
        description="Added before the think instruction for problems of type spatial-reasoning.",
    )
    system: str | None = None
    """System message; null adds none."""
    chat: Literal["chatml", "plain", "tokenizer"] = Field(
        default="chatml",
        description="chatml: <|im_start|> roles; plain: question and instruction only; tokenizer: its own template.",
    )
    special_text: Literal["raise", "neutralise"] = Field(
        default="raise",
        description="What to do when a question holds control text such as <|im_end|>: refuse it, or break it up.",
    )
    max_pixels: PositiveInt = Field(default=512 * 512, description="Larger images are scaled down to this many pixels.")
