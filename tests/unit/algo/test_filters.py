"""Each reason for which a group is not trained on."""

from __future__ import annotations

import pytest

from rl.algo.filters import filter_reason


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ((1.0, 0.0), None),
        ((0.5, 0.5, 0.6), None),
        ((1.0, None, 0.0), None),
        ((1.0, 1.0, 1.0), "all_right"),
        ((1.0, None, 1.0), "all_right"),
        ((0.0, 0.0), "all_wrong"),
        ((0.5, 0.5), "zero_variance"),
        ((0.1 + 0.2, 0.3), "zero_variance"),  # equal but for rounding
        ((1.0, None), "too_few_rewards"),
        ((None, None), "too_few_rewards"),
        ((), "too_few_rewards"),
    ],
)
def test_reason(rewards, reason):
    assert filter_reason(rewards, min_valid=2) == reason


def test_the_least_number_of_rewards_is_set_by_the_caller():
    assert filter_reason((1.0, 0.0, None), min_valid=3) == "too_few_rewards"
    assert filter_reason((1.0, 0.0, 0.0), min_valid=3) is None
