"""Critic verdicts beyond the verifier's own examples."""

from __future__ import annotations

import pytest

import rewards
from rewards.verifiers.critic import EXAMPLES, verdict


def test_its_examples() -> None:
    for example in EXAMPLES:
        for text in example.right:
            assert rewards.score(text, example.answer, "critic").value == 1.0, text
        for text in example.wrong:
            assert rewards.score(text, example.answer, "critic").value == 0.0, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Response 2**", "2"),
        ("The second response is better.", "2"),
        ("(b)", "b"),
        ("[[C]]", "c"),
        ("both are equally good", "tie"),
        ("Incorrect", "no"),
        ("right", None),
        ("1, because 2 is wrong", None),
        ("12", None),
        ("", None),
        ("1" * 10_000, None),
    ],
)
def test_verdicts(text: str, expected: str | None) -> None:
    assert verdict(text) == expected


def test_a_quantity_that_looks_like_a_choice_is_its_number() -> None:
    assert rewards.score("<answer>3.0</answer>", "3", "critic").value == 1.0
    assert rewards.score("<answer>x</answer>", " ", "critic").status == "invalid_gold"
