"""Counts: exactly the whole number that is there. A number in a short phrase counts, two numbers are no count."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.text import bare

_UNIT_NAMES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_UNITS = _UNIT_NAMES.split()
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TWO_WORDS = re.compile(rf"\b({'|'.join(_TENS)}) ({'|'.join(_UNITS[1:10])})\b")
_WORDS = {
    **{word: value for value, word in enumerate(_UNITS)},
    **{word: 10 * value for value, word in enumerate(_TENS, start=2)},
    **{f"{ten}-{_UNITS[unit]}": 10 * tens + unit for tens, ten in enumerate(_TENS, start=2) for unit in range(1, 10)},
    **{"none": 0, "a dozen": 12, "one dozen": 12, "a hundred": 100, "one hundred": 100},
}
_WORD = "|".join(sorted(_WORDS, key=len, reverse=True))
_OPENING = (
    r"(?:in total,? )?(?:there (?:is|are|were)|i (?:can )?(?:count|see)|we (?:can )?(?:count|see)|it shows|"
    r"the (?:image|picture) (?:shows|contains|has)|the (?:answer|count|total|number)(?: of [a-z -]{1,40})? is|"
    r"(?:the )?(?:answer|count|total)\s?[:=]|[a-z]\s?=)"
)
_PHRASE = re.compile(
    rf"(?:{_OPENING}\s)?(?:(?:exactly|a total of)\s)?(?P<count>\d{{1,9}}|{_WORD})(?:\s(?P<noun>[a-z][a-z' -]{{0,60}}))?"
)
_NOT_NOUNS = re.compile(
    r"\b(?:and|or|to|plus|minus|times|not|more|less|fewer|than|over|half|hundred|thousand|dozen|percent)\b"
)
"""Words behind a number that make it another number, or none: `5 or more`, `two dozen`, `one and a half`."""
MAX_CHARS = 200
MAX_COUNT = 10**9

EXAMPLES = (
    Example(
        "12",
        right=(
            "<answer>12</answer>",
            "<answer>twelve</answer>",
            "<answer>12 dogs</answer>",
            "<answer>There are 12 small dogs.</answer>",
            "<answer>**12**</answer>",
            "<answer>12.0</answer>",
            r"\boxed{12}",
        ),
        wrong=(
            "<answer>13</answer>",
            "<answer>-12</answer>",
            "<answer>12.5</answer>",
            "<answer>12%</answer>",
            "<answer>11 or 12</answer>",
            "<answer>12 dogs and 3 cats</answer>",
            "<answer>not 12</answer>",
            "<answer>more than 12</answer>",
            "<answer>12 dozen</answer>",
            "<answer>112</answer>",
            "<answer>many</answer>",
            "<answer>nan</answer>",
            "<answer>" + "12" * 50_000 + "</answer>",
            "<answer>there are " * 5_000 + "</answer>",
            "<answer>12</answer><answer>13</answer>",
            "<think>I see 12</think>",
        ),
    ),
    Example("0", right=("<answer>none</answer>", "<answer>0 birds</answer>"), wrong=("<answer>no idea</answer>",)),
    Example(
        "21", right=("<answer>twenty-one</answer>", "<answer>twenty one cars</answer>"), wrong=("<answer>20</answer>",)
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 where the answer is the gold count, else 0.0; near misses count as wrong."""
    gold = parse_count(answer)
    if gold is None:
        return failed(
            "invalid_gold", f"the accepted answer {shorten(answer)!r} is not one count, a whole number from 0"
        )
    got = parse_count(prediction)
    if got is None:
        return graded(0.0, f"{shorten(prediction)!r} is not one count")
    return graded(float(got == gold), f"{shorten(prediction)!r} against {shorten(answer)!r}")


def parse_count(text: str) -> int | None:
    """The one count that a text states, else None: `12`, `12.0`, `twelve`, `12 dogs`, `There are twelve dogs.`"""
    if len(text) > MAX_CHARS:
        return None
    number = numbers.parse(text, units=False, words=False)
    if number is not None:
        whole = number.value.denominator == 1 and 0 <= number.value <= MAX_COUNT and not number.percent
        return number.value.numerator if whole else None
    phrase = " ".join(bare(text).casefold().rstrip(".! ").split())
    phrase = _TWO_WORDS.sub(r"\1-\2", phrase)
    match = _PHRASE.fullmatch(phrase)
    if match is None or _NOT_NOUNS.search(match["noun"] or ""):
        return None
    count = match["count"]
    return int(count) if count.isdecimal() else _WORDS[count]


verify = on_final_answer(grade)
