"""Rows of the synthetic datasets: the registry of families, the seeding of each row and the pools of the splits.

A row depends on (seed, split, source, index, image size) alone. Which pool a scene may serve depends on its content
alone, so no scene of an evaluation split can be met in training, whatever the seeds of the two.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any

from rl.data.synth import arithmetic, caption, chart, counting, grounding, molecule, spatial
from rl.data.synth.draft import Draft, Task
from rl.errors import DataError

TASKS: dict[str, Task] = {
    "counting": counting.make,
    "grounding": grounding.make,
    "spatial": spatial.make,
    "chart": chart.make,
    "molecule": molecule.make,
    "arithmetic": arithmetic.make,
    "caption": caption.make,
}

POOLS: dict[str, range] = {"train": range(8), "heldout": range(8, 9), "eval": range(9, 10)}
"""Tenths of the space of scenes that each pool owns."""

MAX_TRIES = 2000
"""A pool owns at least a tenth of the scenes: that none of so many falls into it means a family of too few scenes."""


def make_row(
    source: str, split: str, index: int, seed: int, image_size: int = 64, pool: str | None = None
) -> dict[str, Any]:
    """One row in the RL-172K layout; `pool` is needed where the split is not itself named after one.

    Raises:
        DataError: unknown source or pool.
    """
    task = TASKS.get(source)
    if task is None:
        raise DataError(f"unknown synthetic source {source!r}; known: {', '.join(TASKS)}")
    owned = POOLS[pool_of(split, pool)]
    for attempt in range(MAX_TRIES):
        draft = task(random.Random(_stable_int(f"{seed}|{split}|{source}|{index}|{attempt}")), image_size)
        if _stable_int(draft.key) % 10 in owned:
            return _row(draft, source, f"{source}_{split}_{index}")
    raise DataError(f"no {source} scene for split {split!r} in {MAX_TRIES} tries; the family holds too few scenes")


def pool_of(split: str, pool: str | None) -> str:
    """The pool that a split draws from: the one given, else the one that bears its name."""
    name = pool or split
    if name not in POOLS:
        raise DataError(f"split {split!r}: {name!r} is not a pool; set its pool to one of: {', '.join(POOLS)}")
    return name


def _row(draft: Draft, source: str, row_id: str) -> dict[str, Any]:
    images = [] if draft.draw is None else [{"bytes": draft.draw(), "path": None}]
    return {
        "id": row_id,
        "problem": draft.problem,
        "answer": list(draft.answers),
        "images": images,
        "problem_type": draft.problem_type,
        "answer_type": draft.answer_type,
        "source": source,
        "prompt_type": draft.prompt_type,
        "format_guidance": None,
        "data_source": "synth",
        "solution": draft.solution,
        "options": None if draft.options is None else list(draft.options),
        "ability": source,
        "avg_reward": None,
        "tokens": None,
    }


def _stable_int(text: str) -> int:
    """64 bits of sha256: the same in every process, which Python's own hash is not."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
