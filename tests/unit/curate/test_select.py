"""The discrepancy rule, reason by reason; Pass@k worked by hand."""

from __future__ import annotations

import math

import pytest

from rl.config.curate import RewardBand, SelectConfig
from rl.curate.select import judge

RULE = SelectConfig(pass_k=4, min_pass_at_k=0.5, max_pass_at_1=0.75)


def attempts(right: int, n: int = 8) -> tuple[float, ...]:
    return (1.0,) * right + (0.0,) * (n - right)


@pytest.mark.parametrize(
    ("rewards", "pass_at_1", "pass_at_n", "reason"),
    [
        (attempts(0), 0.0, 0.0, "too_hard"),
        (attempts(1), 0.125, 0.5, "kept"),  # 1 - C(7,4)/C(8,4) = 1 - 35/70
        (attempts(2), 0.25, 11 / 14, "kept"),  # 1 - C(6,4)/C(8,4) = 1 - 15/70
        (attempts(6), 0.75, 1.0, "kept"),
        (attempts(7), 0.875, 1.0, "too_easy"),
        (attempts(8), 1.0, 1.0, "too_easy"),
    ],
)
def test_can_but_rarely_does(rewards, pass_at_1, pass_at_n, reason):
    candidate = judge("id", "chart", rewards, 0.5, RULE)
    assert candidate.reason == reason and candidate.kept == (reason == "kept")
    assert (candidate.pass_at_1, candidate.pass_at_n) == (pytest.approx(pass_at_1), pytest.approx(pass_at_n))
    assert candidate.n == 8 and candidate.correct == sum(rewards)


def test_failed_graders_are_no_attempts():
    candidate = judge("id", "chart", (None, 1.0, None, 0.0, 0.0, 0.0), 0.5, RULE)
    assert (candidate.n, candidate.correct, candidate.pass_at_1, candidate.pass_at_n) == (4, 1.0, 0.25, 1.0)
    assert candidate.kept


@pytest.mark.parametrize(("rewards", "valid"), [((None, 1.0, 0.0, None), 2), ((None, None), 0)])
def test_fewer_valid_attempts_than_k_are_not_judged(rewards, valid):
    candidate = judge("id", "chart", rewards, 0.5, RULE)
    assert candidate.reason == "too_few_valid" and not candidate.kept
    assert candidate.n == valid and math.isnan(candidate.mean_reward) and math.isnan(candidate.pass_at_1)


def test_rewards_in_between_count_as_right_from_the_threshold():
    candidate = judge("id", "grounding", (0.5, 0.49, 0.9, 0.0), 0.5, RULE)
    assert candidate.correct == 2 and candidate.mean_reward == pytest.approx(1.89 / 4)


def test_the_band_bounds_the_mean_reward_strictly():
    rule = RULE.model_copy(update={"band": RewardBand(above=0.25, below=0.6)})
    assert judge("id", "chart", attempts(2), 0.5, rule).reason == "outside_band"  # exactly 0.25
    assert judge("id", "chart", attempts(3), 0.5, rule).reason == "kept"
    assert judge("id", "chart", attempts(5), 0.5, rule).reason == "outside_band"  # 0.625


def test_a_source_may_have_its_own_band():
    rule = RULE.model_copy(update={"bands": {"molecule": RewardBand(above=0.0, below=0.2)}})
    assert judge("id", "molecule", attempts(2), 0.5, rule).reason == "outside_band"
    assert judge("id", "chart", attempts(2), 0.5, rule).reason == "kept"


def test_pass_at_k_is_judged_before_pass_at_1_and_band():
    rule = SelectConfig(pass_k=1, min_pass_at_k=0.5, max_pass_at_1=0.0, band=RewardBand(above=0.9, below=1.0))
    assert judge("id", "chart", attempts(2), 0.5, rule).reason == "too_hard"
    assert judge("id", "chart", attempts(4), 0.5, rule).reason == "too_easy"
