"""NAME: the same items in any order, separated by commas.

This file is a whole plug-in: one verifier and its examples. Change `grade` and `EXAMPLES`, then run

    rewards check FILE
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer

MAX_CHARS = 10_000
"""A completion can hold anything: cap what you look at before you work on it."""


def items(text: str) -> set[str]:
    """The items of a list, without case and outer space."""
    return {item.strip().casefold() for item in text.split(",") if item.strip()}


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same items, else 0.0.

    Args:
        prediction: the final answer of the completion: in <answer> tags or a box, after the reasoning.
        answer: one accepted answer of the row.
        sample: further columns of the row, where the caller sends any.
    """
    gold = items(answer)
    if not gold:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} lists nothing")
    if len(prediction) > MAX_CHARS:
        return graded(0.0, f"an answer of {len(prediction)} characters, over {MAX_CHARS}")
    return graded(float(items(prediction) == gold), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)
"""The verifier: finds the final answer, and gives `no_answer` where there is none."""

EXAMPLES: tuple[Example, ...] = (
    Example(
        "iron, oxygen",
        right=(
            "<answer>iron, oxygen</answer>",
            "<think>rust</think><answer>Oxygen, Iron</answer>",
            r"Rust is made of \boxed{oxygen,iron}",
        ),
        wrong=(
            "<answer>iron</answer>",
            "<answer>iron, oxygen, water</answer>",
            "<think>iron, oxygen</think>",
            "iron, oxygen",
            "<answer>iron, oxygen</answer> or <answer>iron</answer>",
        ),
    ),
    Example("gold", right=("<answer>gold</answer>",), wrong=("<answer>golden</answer>", "<answer></answer>")),
)
"""What `rewards check` grades: every text in `right` must get 1, every one in `wrong` 0. List the tricky ones."""
