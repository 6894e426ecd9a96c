"""Critic rows: a short verdict on what is shown, such as which of two responses is better, or where something lies.

In the RL-172K layout these are the free-form rows of RefSpatial, graded there by equal text alone. Verdicts on
responses (`1`, `Response 2 is better`, `[[B]]`, `tie`) come in the same form from critic data sets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.text import bare, folded

MAX_CHARS = 4_000

_CHOICE = re.compile(
    r"(?:the\s+)?(?:(?:response|answer|assistant|option|model|candidate|solution|output)\s+#?)?"
    r"\[{0,2}\(?([a-h]|[1-9])\)?\]{0,2}(?:\s+(?:is\s+(?:the\s+)?(?:better|best)|wins))?"
)
_ORDINAL = re.compile(
    r"(?:the\s+)?(first|second|third|fourth)(?:\s+(?:one|response|answer|option|candidate|solution))?"
    r"(?:\s+(?:is\s+(?:the\s+)?(?:better|best)|wins))?"
)
_ORDINALS = {"first": "1", "second": "2", "third": "3", "fourth": "4"}
_WORDS = {
    **dict.fromkeys(("tie", "draw", "equal", "equally good", "both are equal", "both are equally good"), "tie"),
    **dict.fromkeys(("correct", "true", "yes", "accurate"), "yes"),
    **dict.fromkeys(("incorrect", "false", "no", "wrong", "inaccurate"), "no"),
}
"""`right` is missing on purpose: in spatial rows it is a direction."""

EXAMPLES = (
    Example(
        "1",
        right=(r"\boxed{1}", "<answer>Response 1</answer>", "<answer>the first one is better</answer>"),
        wrong=(
            "<answer>2</answer>",
            "<answer>1 or 2</answer>",
            "<answer>Response 11</answer>",
            "1",
            "<answer>A</answer>",
        ),
    ),
    Example(
        "[[B]]",
        right=("<answer>B</answer>", "<answer>Assistant B is better.</answer>"),
        wrong=("<answer>A</answer>", "<answer>Assistant A is better than B</answer>", "<answer>tie</answer>"),
    ),
    Example("tie", right=("<answer>Equally good.</answer>",), wrong=("<answer>1</answer>", "<answer>no tie</answer>")),
    Example(
        "The lamp is to the right of the sofa.",
        right=("<answer>the lamp is to the right of the sofa</answer>",),
        wrong=("<answer>The lamp is to the left of the sofa.</answer>", "<answer>The sofa</answer>"),
    ),
    Example("right", right=("<answer>Right.</answer>",), wrong=("<answer>yes</answer>", "<answer>left</answer>")),
    Example(
        "1.50 meters", right=("<answer>1.5 meters</answer>",), wrong=("<answer>1.5 cm</answer>", "<answer>15</answer>")
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same verdict: equal texts up to case and punctuation, equal quantities, or names of one choice."""
    if not answer.strip():
        return failed("invalid_gold", "the accepted verdict is empty")
    detail = f"{shorten(prediction)!r} against {shorten(answer)!r}"
    if len(prediction) > MAX_CHARS:
        return graded(0.0, detail)
    if folded(bare(prediction)) == folded(bare(answer)):
        return graded(1.0, detail)
    gold = verdict(answer)
    if gold is not None and verdict(prediction) == gold:
        return graded(1.0, detail)
    quantity, said = numbers.parse(answer), numbers.parse(prediction)
    same = quantity is not None and said is not None and numbers.equal(said, quantity)
    return graded(float(same), detail)


def verdict(text: str) -> str | None:
    """The choice that a verdict names (`1`, `b`), or `tie`, `yes`, `no`; None for any other text."""
    if len(text) > MAX_CHARS:
        return None
    flat = folded(bare(text))
    if flat in _WORDS:
        return _WORDS[flat]
    if (choice := _CHOICE.fullmatch(flat)) is not None:
        return choice.group(1)
    ordinal = _ORDINAL.fullmatch(flat)
    return None if ordinal is None else _ORDINALS[ordinal.group(1)]


verify = on_final_answer(grade)
