"""Form only: the tags in the right order, how long the completion is, and how much it repeats itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import RewardResult
from rewards.extract import is_well_formed

NGRAM = 8
MAX_WORDS = 20_000


def repetition(text: str) -> float:
    """Share of the 8-word runs that occurred before, in [0, 1): 0 for ordinary text, near 1 for a loop.

    Text without spaces is taken by characters, in runs of 8 as well. Only the last 20,000 words are looked at.
    """
    words: list[str] | str = text.split()[-MAX_WORDS:]
    if len(words) < len(text) / 40:
        words = text[-MAX_WORDS:]
    runs = [tuple(words[start : start + NGRAM]) for start in range(len(words) - NGRAM + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def verify(
    completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
) -> RewardResult:
    """1.0 for the form that the row's `prompt_type` asks for, else 0.0; the gold answer is not looked at.

    Components: `format`, `length` (characters) and `repetition`.
    """
    thinks = (sample or {}).get("prompt_type") != "normal"
    right = float(is_well_formed(completion, thinks=thinks))
    return RewardResult(
        right, "ok", {"format": right, "length": float(len(completion)), "repetition": repetition(completion)}, ""
    )
