"""Yes or no, true or false. A word counts only where it is the answer: `I do not know` is not `no`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten, tagged
from rewards.extract import on_final_answer
from rewards.text import bare, folded

MAX_CHARS = 2_000

_VALUES = {
    **dict.fromkeys(("yes", "true", "correct", "right", "y", "t", "1", "是", "是的", "对", "正确"), True),
    **dict.fromkeys(("no", "false", "incorrect", "wrong", "n", "f", "0", "否", "不是", "错", "错误"), False),
}
_PREFIX = re.compile(
    r"(?:(?:so|thus|therefore|hence),?\s)?(?:(?:the |my )?(?:final |correct )?answer(?: is)?\s?:?\s?"
    r"|(?:it|this|that|the (?:statement|claim|proposition|sentence|answer)) is\s)(?=\S)"
)
_LEADING = re.compile(r"(yes|no|true|false)\s?[,.;:!—-]+\s?(?=\S)")
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def truth(answer: str) -> bool | None:
    """The truth value that an answer states, or None: `Yes, because ...` is True; `yes, no` is None."""
    if len(answer) > MAX_CHARS:
        return None
    text = folded(bare(answer.strip()).replace("\n", " . "))
    prefix = _PREFIX.match(text)
    if prefix is not None:
        text = folded(bare(text[prefix.end() :]))
    if text in _VALUES:
        return _VALUES[text]
    leading = _LEADING.match(text)
    if leading is None:
        return None
    word = leading.group(1)
    contradicted = re.search(rf"\b{_OPPOSITE[word]}\b", text[leading.end() :])
    return None if contradicted else _VALUES[word]


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same truth value, else 0.0."""
    gold = truth(answer)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is neither yes nor no")
    return graded(float(truth(prediction) is gold), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "no",
        right=(
            *tagged("No", "no.", "**No**", "False", "No, it is not round.", "The answer is no"),
            r"\boxed{\text{no}}",
        ),
        wrong=(
            *tagged("I do not know", "none", "not sure", "yes", "yes and no", "no yes", "nothing", "No, yes"),
            "no",
        ),
    ),
    Example(
        "True",
        right=tagged(
            "yes", "TRUE", "Yes, because it is.", "The statement is true.", "ｙｅｓ", "Yes\nIt has four sides."
        ),
        wrong=tagged("false", "True or false", "not true", "truer", "Yes\nNo", "It is not true", "yes " * 3),
    ),
)
