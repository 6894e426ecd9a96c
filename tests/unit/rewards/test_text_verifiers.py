"""number, counting, boolean, multiple-choice, string, ocrtext and format: gold, wrong and hostile answers."""

from __future__ import annotations

import pytest

from rewards import numbers, score
from rewards.base import RewardResult
from rewards.verifiers.format import brevity, compression, repetition


def grade(answer_type: str, gold: str, prediction: str, **sample: object) -> float | None:
    return full(answer_type, gold, prediction, **sample).value


def full(answer_type: str, gold: str, prediction: str, **sample: object) -> RewardResult:
    return score(f"<think>so</think><answer>{prediction}</answer>", gold, answer_type, sample=sample)


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("5", "5"),
        ("5", "5.0"),
        ("5", "five"),
        ("5", r"\boxed{5}"),
        ("5", "**5**."),
        ("5", "5 apples"),
        ("5", "n = 5"),
        ("-3", "−3"),
        ("1000", "1,000"),
        ("0.5", r"\frac{1}{2}"),
        ("2.5", "2 1/2"),
        ("0.0015", r"1.5 \times 10^{-3}"),
        ("1500", "1.5e3"),
        ("50%", "50 %"),
        ("50%", "0.5"),
        ("9.8 m/s^2", "9.8 m / s²"),
        ("0.333333", "1/3"),
        ("12", "１２"),
    ],
)
def test_number_right(gold: str, prediction: str) -> None:
    assert grade("number", gold, prediction) == 1.0


@pytest.mark.parametrize(
    ("gold", "prediction"),
    [
        ("5", "-5"),
        ("5", "5 or 6"),
        ("5", "5, 6"),
        ("5", "not 5"),
        ("5", "15"),
        ("5", "5x"),
        ("5", "nan"),
        ("5", "inf"),
        ("5", "1e999999999"),
        ("5", "1/0"),
        ("5", "5" * 100_000),
        ("5 cm", "5 m"),
        ("3.14159", "3.14"),
        ("0.000001", "0.000002"),
    ],
)
def test_number_wrong(gold: str, prediction: str) -> None:
    assert grade("number", gold, prediction) == 0.0


def test_number_refuses_a_gold_that_is_no_number() -> None:
    assert full("number", "several", "5").status == "invalid_gold"


def test_numbers_are_exact_fractions() -> None:
    parsed = numbers.parse("-1,234.50")
    assert parsed is not None
    assert (parsed.value.numerator, parsed.value.denominator, parsed.exact) == (-2469, 2, False)


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("no", "No.", 1.0),
        ("yes", "True", 1.0),
        ("yes", "Yes, because it is round.", 1.0),
        ("no", r"\boxed{\text{False}}", 1.0),
        ("yes", "The answer is yes", 1.0),
        ("no", "I do not know", 0.0),
        ("no", "none", 0.0),
        ("no", "yes and no", 0.0),
        ("yes", "Yes, or no", 0.0),
        ("no", "no yes", 0.0),
        ("no", "no" * 500_000, 0.0),
    ],
)
def test_boolean(gold: str, prediction: str, value: float) -> None:
    assert grade("boolean", gold, prediction) == value


def test_boolean_gold_must_be_one() -> None:
    assert full("boolean", "perhaps", "no").status == "invalid_gold"


OPTIONS = ["red", "B. green", "blue"]


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("C", "C", 1.0),
        ("C", "(C)", 1.0),
        ("C", "C.", 1.0),
        ("C", "**C**", 1.0),
        ("C", r"\boxed{C}", 1.0),
        ("C", r"$\text{C}$", 1.0),
        ("C", r"\textbf{(C)}", 1.0),
        ("C", "C. blue", 1.0),
        ("C", "**C.** blue", 1.0),
        ("C", "blue", 1.0),
        ("B", "Green.", 1.0),
        ("green", "B", 1.0),
        ("C", "Answer: (C)", 1.0),
        ("C", "The correct option is C.", 1.0),
        ("A,C", "A and C", 1.0),
        ("AC", "C, A", 1.0),
        ("C", "B", 0.0),
        ("C", "C. red", 0.0),
        ("C", "C or B", 0.0),
        ("C", "A, B, C", 0.0),
        ("C", "ABC", 0.0),
        ("C", "A. red\nB. green\nC. blue", 0.0),
        ("C", "C. blue or B", 0.0),
        ("C", "Cat", 0.0),
        ("A", "A dog", 0.0),
        ("A,C", "A", 0.0),
        ("C", "C" * 1_000_000, 0.0),
    ],
)
def test_multiple_choice(gold: str, prediction: str, value: float) -> None:
    assert grade("multiple-choice", gold, prediction, options=OPTIONS) == value


def test_multiple_choice_options_may_be_a_mapping_or_json() -> None:
    assert grade("multiple-choice", "B", "green", options={"A": "red", "B": "green"}) == 1.0
    assert grade("multiple-choice", "B", "green", options='["red", "green"]') == 1.0
    assert grade("multiple-choice", "B", "green") == 0.0


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("Mount Fuji", "mount  fuji.", 1.0),
        ("ﬁne", "fine", 1.0),
        ("Mount Fuji", "Fuji", 0.0),
        ("no", "I do not know", 0.0),
        ("...", "...", 1.0),
        ("a", "a" * 1_000_000, 0.0),
    ],
)
def test_string(gold: str, prediction: str, value: float) -> None:
    assert grade("string", gold, prediction) == value
    assert grade("any", gold, prediction) == value


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("kitten", "kitten", 1.0),
        ("kitten", "sitting", 1 - 3 / 7),  # the textbook example: three edits, seven letters
        ("ab cd", "ab\n cd", 1.0),
        ("abc", "ABC", 0.0),
        ("abc", "x" * 1_000_000, 0.0),
    ],
)
def test_ocrtext(gold: str, prediction: str, value: float) -> None:
    assert grade("ocrtext", gold, prediction) == pytest.approx(value)


def test_ocrtext_needs_a_gold_text() -> None:
    assert full("ocrtext", "  ", "a").status == "invalid_gold"


def test_format() -> None:
    right = score("<think>a b</think><answer>5</answer>", "", "format")
    assert (right.value, right.components["length"], right.components["repetition"]) == (1.0, 36.0, 0.0)
    assert score("<answer>5</answer><think>a</think>", "", "format").value == 0.0
    assert score("<answer>5</answer>", "", "format", sample={"prompt_type": "normal"}).value == 1.0


def test_format_is_the_product_of_its_parts() -> None:
    tagged = "<think>" + " ".join(f"w{i}" for i in range(100)) + "</think><answer>5</answer>"
    assert len(tagged) == 7 + (10 * 2 + 90 * 3 + 99) + 8 + 18
    assert score(tagged, "", "format", sample={"max_chars": 528}).value == 1.0  # 80 % of it is 422.4
    half = score(tagged, "", "format", sample={"max_chars": 469}).components["brevity"]
    assert half == pytest.approx((469 - 422) / (0.2 * 469))
    assert score(tagged, "", "format", sample={"max_chars": 422}).value == 0.0
    looped = score("<think>" + "no " * 60 + "</think><answer>5</answer>", "", "format")
    assert (looped.value, looped.components["format"], looped.components["originality"]) == (0.0, 1.0, 0.0)
    assert looped.components["compression"] > 2.4
    for wrong in (0, -5, "10", True):
        assert score(tagged, "", "format", sample={"max_chars": wrong}).status == "error"


def test_brevity_and_compression_by_hand() -> None:
    assert [brevity(length, 100) for length in (0, 80, 85, 90, 100, 1000)] == [1.0, 1.0, 0.75, 0.5, 0.0, 0.0]
    assert [brevity(length, 100, soft_share=0.0) for length in (100, 101)] == [1.0, 0.0]
    assert compression("") == 1.0
    assert compression("ab") < 1.0
    assert compression("\ud800" * 10) > 0


def test_repetition_by_hand() -> None:
    assert repetition("one two three") == 0.0
    # 10 equal words have three runs of eight words, one of them distinct
    assert repetition("no " * 10) == pytest.approx(2 / 3)
    assert repetition("a" * 100_000) > 0.99
