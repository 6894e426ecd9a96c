"""Transcribed text: the normalised Levenshtein similarity, 1 - edits / length of the longer text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from rapidfuzz.distance import Levenshtein

from rewards.base import RewardResult, failed, graded
from rewards.extract import on_final_answer

MAX_CHARS = 30_000


def normalise(text: str) -> str:
    """Compatibility characters unified, white space collapsed; case and punctuation are part of a transcription."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """The similarity in [0, 1]; 0.0 for a text so long that it could not reach 0.25."""
    if len(answer) > MAX_CHARS:
        return failed("invalid_gold", f"the accepted answer has {len(answer)} characters, over {MAX_CHARS}")
    gold = normalise(answer)
    if not gold:
        return failed("invalid_gold", "the accepted answer is empty, so nothing can be compared with it")
    if len(prediction) > 4 * len(answer) + 400:
        return graded(0.0, f"{len(prediction)} characters against {len(answer)}", exact=0.0)
    got = normalise(prediction)
    value = Levenshtein.normalized_similarity(got, gold)
    return graded(value, f"similarity {value:.3f}", exact=float(got == gold))


verify = on_final_answer(grade)
