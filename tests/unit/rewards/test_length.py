"""Length shaping by numbers worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.length import LengthConfig, measure, shaped

TEXT = "<think>one two three</think><answer>four five</answer>"


@pytest.mark.parametrize(
    ("length", "expected"), [(0, 1.0), (200, 1.0), (201, 0.99), (250, 0.5), (300, 0.0), (10_000, 0.0)]
)
def test_a_soft_cap(length: int, expected: float) -> None:
    assert shaped(length, LengthConfig(high=200, fade_high=100)) == pytest.approx(expected)


def test_the_soft_cap_of_dapo() -> None:
    # arXiv 2503.14476: L_max 20480, L_cache 4096; their punishment at 18432 tokens is (16384 - 18432) / 4096 = -0.5
    config = LengthConfig(unit="tokens", high=16384, fade_high=4096)
    assert [shaped(length, config) - 1 for length in (16384, 18432, 20480, 30000)] == [0.0, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("length", "expected"), [(9, 0.0), (10, 0.0), (15, 0.25), (20, 0.5), (30, 1.0), (40, 1.0), (41, 0.0)]
)
def test_a_target_with_a_slope_below_and_a_step_above(length: int, expected: float) -> None:
    assert shaped(length, LengthConfig(low=30, high=40, fade_low=20)) == expected


@pytest.mark.parametrize(
    ("of", "unit", "expected"),
    [
        ("completion", "words", 4),  # the tags cling to their neighbours: three</think><answer>four is one word
        ("completion", "characters", 54),
        ("reasoning", "words", 3),
        ("reasoning", "characters", 28),
        ("answer", "words", 2),
        ("answer", "characters", 9),
        ("completion", "tokens", 17),
    ],
)
def test_what_is_measured(of: Any, unit: Any, expected: int) -> None:
    assert measure(TEXT, LengthConfig(of=of, unit=unit, high=1), tokens=17) == expected


def test_what_is_missing() -> None:
    assert measure(TEXT, LengthConfig(unit="tokens", high=1)) is None
    assert measure("<think>never ends", LengthConfig(of="answer", high=1)) == 0
    assert measure("<think>never ends", LengthConfig(of="reasoning", high=1)) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "every length would be right"),
        ({"low": 5, "high": 4}, "low 5 is above high 4"),
        ({"low": 5, "fade_low": 6}, "reaches below 0"),
        ({"high": 5, "of": "answer", "unit": "tokens"}, "whole completions only"),
        ({"hihg": 5}, "did you mean high"),
    ],
)
def test_settings_that_can_not_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LengthConfig(**changes)
