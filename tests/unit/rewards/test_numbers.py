"""Numbers and units as people write them: one value each, worked by hand, or none."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rewards import numbers, units
from rewards.text import MAX_MARKS, after_lead, folded, normalised, visible


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1,234.5", Fraction(2469, 2), ""),
        ("1 234", Fraction(1234), ""),
        ("1'234", Fraction(1234), ""),
        ("1,00,000", Fraction(100_000), ""),
        ("2,74", Fraction(274, 100), ""),
        ("0,111", Fraction(111, 1000), ""),
        ("1,222", Fraction(1222), ""),
        ("2½", Fraction(5, 2), ""),
        ("-2 1/2", Fraction(-5, 2), ""),
        (r"2\frac{1}{2}", Fraction(5, 2), ""),
        ("1.5×10⁻³", Fraction(3, 2000), ""),
        ("1.6e-19", Fraction(16, 10**20), ""),
        ("$5 million", Fraction(5_000_000), "$"),
        ("-€3.20", Fraction(-32, 10), "€"),
        ("25 °C", Fraction(25), "°C"),
        ("9.8 m s^{-2}", Fraction(98, 10), "m/s2"),
        ("5 kilograms", Fraction(5), "kg"),
        ("twenty-one", Fraction(21), ""),
        ("minus three hundred and five", Fraction(-305), ""),
        ("one million two hundred thousand", Fraction(1_200_000), ""),
        ("five cats", Fraction(5), "cat"),
        ("There are 5 cats.", Fraction(5), "cat"),
        ("the answer is 5", Fraction(5), ""),
        ("[5]", Fraction(5), ""),
    ],
)
def test_parsed(text: str, value: Fraction, unit: str) -> None:
    parsed = numbers.parse(text)
    assert parsed is not None
    assert (parsed.value, parsed.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5 or 6",
        "5, 6",
        "5-6",
        "1 2",
        "1,2,3",
        "two three",
        "and five",
        "hundred",
        "four-ish",
        "5 dozen",
        "1/0",
        "5x",
        "5..",
    ]
    + ["no", "1e9999", "5 and 6", "[5", "3 apples and 2 pears", "not 5", "0x10", "5 plus 6", "½½"],
)
def test_no_single_number(text: str) -> None:
    assert numbers.parse(text) is None


def test_percent_and_its_fraction() -> None:
    percent, fraction, whole, other = (numbers.parse(text) for text in ("28 percent", "0.28", "28", "0.029"))
    assert percent is not None and fraction is not None and whole is not None and other is not None
    assert percent.percent
    assert numbers.equal(fraction, percent) and numbers.equal(whole, percent)
    assert not numbers.equal(other, percent)


def test_tolerance_is_relative_to_the_gold_number() -> None:
    # 0.02 of 50 is 1
    assert numbers.close(Fraction(51), Fraction(50), exact=True, tolerance=0.02)
    assert not numbers.close(Fraction(52), Fraction(50), exact=True, tolerance=0.02)
    assert numbers.tolerance_of({}) == 0.0
    with pytest.raises(ValueError, match="set a relative error"):
        numbers.tolerance_of({"tolerance": 2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("meters per second squared", "m/s2"),
        (r"\mathrm{~kJ}\,\mathrm{mol}^{-1}", "kJ/mol"),
        ("square centimetres", "cm2"),
        ("km/h", "km/h"),
        ("mph", "mi/h"),
        ("N m", "N*m"),
        ("degrees Celsius", "°C"),
        (r"^\circ", "°"),
        ("µm", "μm"),
        ("apples", None),
        ("per", None),
        ("", None),
        ("m/", None),
    ],
)
def test_units(text: str, expected: str | None) -> None:
    assert units.canonical(text) == expected


def test_nouns_lose_their_plural() -> None:
    assert units.loose("Apples.") == units.loose("apple") == "apple"
    assert units.loose("glass") == "glass"


def test_what_nobody_sees_goes() -> None:
    assert visible("\u202e5\x00\u200b\ud800 a\n") == "5 a\n"
    assert folded("Ｍount\u00ad  FUJI！") == "mount fuji"


def test_combining_marks_are_cut_before_they_are_sorted() -> None:
    assert normalised("e\u0301") == "é"
    assert len(normalised("x" + "\u0315\u0300" * 100_000)) <= 1 + MAX_MARKS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 5", "5"),
        ("Final answer: **5**", "5"),
        ("So the total is 5", "5"),
        ("The answering machine", "The answering machine"),
        ("5", "5"),
        ("the answer is", "the answer is"),
    ],
)
def test_lead(text: str, expected: str) -> None:
    assert after_lead(text) == expected
