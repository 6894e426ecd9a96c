"""Numbers and counts: the same value, however it is written. `-5` is not 5, and two numbers are no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 where the answer is one number equal to the gold number, see `rewards.numbers.equal`."""
    gold = numbers.parse(answer)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not one number")
    got = numbers.parse(prediction)
    if got is None:
        return graded(0.0, f"{shorten(prediction)!r} is not one number")
    return graded(float(numbers.equal(got, gold)), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)
