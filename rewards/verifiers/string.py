"""Short texts: equal after unifying case, white space, compatibility characters and outer punctuation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.text import bare, folded

MAX_CHARS = 20_000


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for equal normalised texts, else 0.0."""
    if not answer.strip():
        return failed("invalid_gold", "the accepted answer is empty, so nothing can be compared with it")
    if len(answer) > MAX_CHARS:
        return failed("invalid_gold", f"the accepted answer has {len(answer)} characters, over {MAX_CHARS}")
    if len(prediction) > MAX_CHARS:
        return graded(0.0, f"an answer of {len(prediction)} characters, over {MAX_CHARS}")
    same = folded(bare(prediction)) == folded(bare(answer))
    return graded(float(same), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)
