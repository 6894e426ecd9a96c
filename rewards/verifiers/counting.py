"""Counts: whole numbers, in digits or words, with the thing counted behind. Nothing is rounded: 2.9999999 is not 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import Example, RewardResult, failed, graded, shorten, tagged
from rewards.extract import on_final_answer


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same whole number, not negative and no percentage; the nouns behind it must not differ."""
    gold = _count(answer)
    if gold is None:
        return failed(
            "invalid_gold", f"the accepted answer {shorten(answer)!r} is no count: one whole number, 0 or more"
        )
    got = _count(prediction)
    if got is None:
        return graded(0.0, f"{shorten(prediction)!r} is no count")
    same = got.value == gold.value and (not got.unit or not gold.unit or got.unit == gold.unit)
    return graded(float(same), f"{shorten(prediction)!r} against {shorten(answer)!r}")


def _count(text: str) -> numbers.Quantity | None:
    number = numbers.parse(text, commas=False)
    whole = number is not None and number.value.denominator == 1 and number.value >= 0 and not number.percent
    return number if whole else None


verify = on_final_answer(grade)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "3",
        right=(*tagged("3", "three", "Three.", "3 cats", "There are 3 cats.", "3.0", "３"), r"I see \boxed{3}"),
        wrong=tagged("-3", "2", "3 or 4", "1, 2, 3", "2.9999999", "3%", "a few", "thirty", "one two three"),
    ),
    Example(
        "1200",
        right=tagged("1,200", "1 200", "twelve hundred", "one thousand two hundred", "1.2 thousand"),
        wrong=tagged("1", "200", "1.2", "12"),
    ),
    Example("0", right=tagged("0", "zero", "0 dogs"), wrong=tagged("none of them is 0 or 1", "10", "1")),
)
