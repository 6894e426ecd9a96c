"""Numbers: the same value, however it is written. `-5` is not 5, and two numbers are no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import Example, RewardResult, failed, graded, shorten, tagged
from rewards.extract import on_final_answer


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 where the answer is one number equal to the gold number, see `rewards.numbers.equal`.

    The row's `tolerance` is the relative error that is allowed; 0 without one.
    """
    gold = numbers.parse(answer)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not one number")
    tolerance = numbers.tolerance_of(sample)
    got = numbers.parse(prediction)
    if got is None:
        return graded(0.0, f"{shorten(prediction)!r} is not one number")
    return graded(float(numbers.equal(got, gold, tolerance)), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "1234.5",
        right=(*tagged("1,234.50", "1 234.5", "1.2345e3", "$1234.5$", "x = 1234.5"), r"so \boxed{1234.5}"),
        wrong=(
            *tagged("-1234.5", "12345", "1,234", "1234.5 or 1234.6", "1234.5x"),
            "1234.5",
            r"\boxed{1} \boxed{1234.5}",
        ),
    ),
    Example(
        "-3/4",
        right=tagged("-0.75", r"-\frac{3}{4}", "−3/4", "-¾", "the answer is -3/4"),
        wrong=tagged("0.75", "3/4", "-4/3", "-0.7", "not -0.75"),
    ),
    Example(
        "9.8 m/s^2",
        right=tagged("9.8", "9.8 m/s²", r"9.8\,\mathrm{m/s^2}", "9.8 meters per second squared"),
        wrong=tagged("9.8 km/h", "9.81", "98", "9.8 m"),
    ),
    Example(
        "50%", right=tagged("50 %", "0.5", r"50\%", "50 percent", "50"), wrong=tagged("5", "0.05", "500%", "half-ish")
    ),
    Example("100", right=tagged("99.5", "101", "100"), wrong=tagged("98", "102", "-100"), sample={"tolerance": 0.01}),
)
