"""No text makes a verifier of texts or numbers raise, hang or change its mind; seeds are fixed."""

from __future__ import annotations

import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rewards import registry
from rewards.base import RewardResult
from rewards.verifiers import math_expressions

TYPES = ("boolean", "counting", "math-expressions", "multiple-choice", "number", "ocrtext", "string")
GOLDS = {
    "boolean": "no",
    "counting": "5",
    "math-expressions": r"\frac{1}{2}",
    "multiple-choice": "C",
    "number": "5 cm",
    "ocrtext": "five 5",
    "string": "five",
}
CASES = Path(__file__).parents[2] / "golden" / "math_cases"
SPELLED = r"""\frac \sqrt { } ( ) [ ] ^ _ + - * / = < > \le \cup \infty \sum_{k=1}^{9} \prod \int \lim_{x\to0} ! | , ; :
x y n e i A B C 1 2 10 99999 0 0.5 \pi \sin \log \ln \pm \{ \} $ $$ \( \) \[ \] \text{ \begin{pmatrix} \end{pmatrix} &
\\ \in \binom % or and not is yes no true false five \boxed{ \left \right \lfloor \bmod \overline{ \cdot f ' \gcd ^\circ
\mid \mathrm{ ** <answer> <think> cm m/s √ ² ½ − ∞ π 五 ５ ٣"""
TOKENS = SPELLED.split()
UNSEEN = [
    "\x00",
    "\u202e",
    "\u200b",
    "\ud800",
    "\udfff",
    "\u0301",
    "\ufdfa",
    "\n",
    " ",
    "\u3000",
    "\U0001d7d3",
    "\ufeff",
]
LONG = [
    "5",
    " ",
    "no ",
    "C",
    "A,",
    "<answer>",
    "\\boxed{",
    "{",
    "}",
    "\\",
    "$",
    "1,111",
    "\u0301\u0315",
    "\ufdfa",
    "٣",
    "\ud800",
]


def verifier(answer_type: str) -> Any:
    return importlib.import_module(registry.VERIFIERS[answer_type].partition(":")[0]).verify


def corpus() -> list[str]:
    cases = [case for path in CASES.glob("*.json") for case in json.loads(path.read_text())["cases"]]
    return [text for case in cases for text in (case["gold"], case["prediction"]) if len(text) < 300]


def texts(generator: random.Random, count: int) -> Iterator[str]:
    """Tokens in any order, and known answers with pieces cut out, repeated or put in."""
    known = sorted(set(corpus()))
    alphabet = TOKENS + UNSEEN
    for _ in range(count):
        if generator.random() < 0.4:
            yield "".join(generator.choices(alphabet, k=generator.randint(0, 30)))
            continue
        text = generator.choice(known)
        for _ in range(generator.randint(1, 4)):
            start = generator.randint(0, len(text))
            end = min(len(text), start + generator.randint(0, 8))
            piece = generator.choice([generator.choice(alphabet), "", text[start:end] * generator.randint(2, 9)])
            text = text[:start] + piece + text[end:]
        yield text


def check(result: Any) -> None:
    assert isinstance(result, RewardResult)
    assert result.value is None or 0.0 <= result.value <= 1.0
    assert len(result.detail) < 1_000
    json.dumps([result.value, result.status, result.components, result.detail])


@pytest.mark.parametrize("answer_type", TYPES)
@pytest.mark.timeout(300)
def test_random_answers_and_golds_are_graded_twice_the_same(answer_type: str) -> None:
    generator = random.Random(f"fuzz {answer_type}")
    verify = verifier(answer_type)
    answers = list(texts(generator, 250))
    golds = [GOLDS[answer_type] if generator.random() < 0.6 else generator.choice(answers) for _ in answers]
    first = [verify(f"<answer>{answer}</answer>", gold) for answer, gold in zip(answers, golds, strict=True)]
    for result in first:
        check(result)
    math_expressions._cached_verdict.cache_clear()
    again = [verify(f"<answer>{answer}</answer>", gold) for answer, gold in zip(answers, golds, strict=True)]
    assert again == first


@pytest.mark.parametrize("answer_type", TYPES)
@pytest.mark.timeout(120)
def test_long_answers_and_golds_are_wrong_and_soon_graded(answer_type: str) -> None:
    verify, gold = verifier(answer_type), GOLDS[answer_type]
    for pattern in LONG:
        size = 2**20 if pattern in ("5", "\ufdfa") else 15_000
        text = pattern * (size // len(pattern))
        result = verify(f"<answer>{text}</answer>", gold)
        check(result)
        assert (result.value or 0.0) < 0.5
        check(verify(f"<answer>{gold}</answer>", text))
        check(verify(text, gold))


@pytest.mark.parametrize("answer_type", TYPES)
def test_what_nobody_sees_changes_nothing(answer_type: str) -> None:
    gold = GOLDS[answer_type]
    for mark in ("\x00", "\u202e", "\u200b", "\ufeff", "\ud800", "\u200f"):
        for answer in (mark + gold, gold + mark):
            assert verifier(answer_type)(f"<answer>{answer}</answer>", gold).value == 1.0


@pytest.mark.parametrize("answer_type", ["counting", "number", "math-expressions"])
@pytest.mark.parametrize("five", ["5", "５", "٥", "५", "𝟓", "𝟝"])
def test_digits_of_any_script(answer_type: str, five: str) -> None:
    assert verifier(answer_type)(f"<answer>{five}</answer>", "5").value == 1.0
    assert verifier(answer_type)(f"<answer>{five}{five}</answer>", "5").value == 0.0


@pytest.mark.parametrize(
    "options", ["[" * 100_000, '{"A":', [None] * 27, [["x"]], {1: 2}, 5, "[1, 2]", {"C": "\ud800"}]
)
def test_options_of_any_kind(options: Any) -> None:
    check(verifier("multiple-choice")("<answer>C</answer>", "C", sample={"options": options}))
