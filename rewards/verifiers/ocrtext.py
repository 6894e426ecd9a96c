"""Transcribed text: the normalised Levenshtein similarity, 1 - edits / length of the longer text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, tagged
from rewards.extract import on_final_answer
from rewards.text import normalised

MAX_CHARS = 20_000
"""Of a gold text; the time is quadratic in it, a quarter of a second at most."""


def normalise(text: str) -> str:
    """Compatibility characters unified, white space collapsed; case and punctuation are part of a transcription."""
    return " ".join(normalised(text).split())


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """The similarity in [0, 1]; 0.0 for a text so long that it could not reach 0.25. `exact` is 1 for equal texts."""
    from rapidfuzz.distance import Levenshtein

    if len(answer) > MAX_CHARS:
        return failed("invalid_gold", f"the accepted answer has {len(answer)} characters, over {MAX_CHARS}")
    gold = normalise(answer)
    if not gold:
        return failed("invalid_gold", "the accepted answer is empty, so nothing can be compared with it")
    if len(prediction) > 4 * len(answer) + 400:
        return graded(0.0, f"{len(prediction)} characters against {len(answer)}", exact=0.0)
    got = normalise(prediction)
    if len(got) > 4 * len(gold) + 400:  # some characters stand for up to eighteen
        return graded(0.0, f"{len(got)} characters against {len(gold)}", exact=0.0)
    value = Levenshtein.normalized_similarity(got, gold)
    return graded(value, f"similarity {value:.3f}", exact=float(got == gold))


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load the edit distance."""
    grade("a", "b", {})


EXAMPLES: tuple[Example, ...] = (
    Example(
        "Invoice No. 42",
        right=tagged("Invoice No. 42", "Invoice  No.\n42", "Ｉnvoice No. 42", "Invoice\u200b No. 42"),
        wrong=(*tagged("", "\u200b", "zzzzz", "x" * 100_000), "Invoice No. 42"),
    ),
    Example("北京 2024", right=tagged("北京 2024", "北京　２０２４"), wrong=tagged("上海", "#", "abc")),
)
