"""Counts: the phrases that state one, and those that do not."""

from __future__ import annotations

import pytest

from rewards import score
from rewards.verifiers.counting import parse_count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("7", 7),
        ("07", 7),
        ("7.0", 7),
        ("7.", 7),
        ("1,024", 1024),
        ("1e3", 1000),
        ("７", 7),
        ("$7$", 7),
        ("n = 7", 7),
        ("Answer: 7", 7),
        ("Seven", 7),
        ("seven people", 7),
        ("Ninety-nine red balloons", 99),
        ("thirty two", 32),
        ("a dozen eggs", 12),
        ("There is one dog in the picture.", 1),
        ("I count 3 cups on the table", 3),
        ("The number of red cars is 4.", 4),
        ("In total, there are exactly 5 discs", 5),
        ("None", 0),
        ("zero", 0),
        ("-1", None),
        ("7.5", None),
        ("7/2", None),
        ("7%", None),
        ("about 7", None),
        ("at least 7", None),
        ("7 or more", None),
        ("7 or 8", None),
        ("7, 8", None),
        ("7-8", None),
        ("not seven", None),
        ("two dozen", None),
        ("one hundred and five", None),
        ("seven and a half", None),
        ("person 7 is tall", None),
        ("There are 7 dogs and 2 cats", None),
        ("inf", None),
        ("1e999", None),
        ("", None),
        ("9" * 1_000_000, None),
        ("seven " * 40, None),
        ("there are " * 19, None),
    ],
)
def test_counts(text: str, count: int | None) -> None:
    assert parse_count(text) == count


def test_a_near_miss_is_wrong_and_a_gold_that_is_no_count_no_score() -> None:
    assert score("<answer>6</answer>", "7", "counting").value == 0.0
    for gold in ("7.5", "-7", "some", ""):
        assert score("<answer>7</answer>", gold, "counting").status == "invalid_gold"
