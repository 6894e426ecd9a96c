"""Pass@k against an enumeration of every draw."""

from __future__ import annotations

from itertools import combinations

import pytest

from rl.algo.passk import pass_at_k


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_equals_the_share_of_draws_with_a_right_attempt(n):
    for correct in range(n + 1):
        attempts = [i < correct for i in range(n)]
        for k in range(1, n + 1):
            draws = list(combinations(attempts, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-12)


def test_by_hand():
    assert pass_at_k(8, 2, 1) == 0.25
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)  # 3 of the 6 pairs hold the right one
    assert pass_at_k(6, 2, 5) == 1.0  # four wrong ones can't fill five places


@pytest.mark.parametrize(
    ("n", "correct", "k", "message"),
    [
        (4, 5, 1, "5 right of 4"),
        (4, -1, 1, "-1 right of 4"),
        (4, 2, 5, "Pass@5 can't be estimated from 4 attempts"),
        (4, 2, 0, "Pass@0"),
        (0, 0, 1, "Pass@1 can't be estimated from 0"),
    ],
)
def test_impossible_counts_are_refused(n, correct, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, correct, k)
