"""Yes or no, true or false. A word counts only where it is the answer: `I do not know` is not `no`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.text import bare, folded

_VALUES = {
    **dict.fromkeys(("yes", "true", "correct", "right", "y", "t", "1", "是", "对", "正确"), True),
    **dict.fromkeys(("no", "false", "incorrect", "wrong", "n", "f", "0", "否", "不是", "错", "错误"), False),
}
_PREFIX = re.compile(r"(?:the )?(?:final )?answer(?: is)?\s?:?\s?(?=\S)")
_LEADING = re.compile(r"(yes|no|true|false)\s?[,.;:!—-]\s?(?=\S)")
_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_MAX_CHARS = 2_000


def truth(answer: str) -> bool | None:
    """The truth value that an answer states, or None: `Yes, because ...` is True; `yes, no` is None."""
    if len(answer) > _MAX_CHARS:
        return None
    text = folded(bare(answer))
    prefix = _PREFIX.match(text)
    if prefix is not None:
        text = text[prefix.end() :]
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
