"""mean@k and Pass@k of an evaluation, by hand, failed graders included."""

from __future__ import annotations

import math

import pytest

from rl.eval.runner import Attempts, attempt_seed, summarise
from tests.unit.groups import make_group


def attempts(source: str, rewards: tuple[float | None, ...], lengths: tuple[int, ...] | None = None) -> Attempts:
    group = make_group(rewards=rewards, source=source, lengths=lengths)
    return Attempts(group.meta, group.meta.sample_id, source, group.rewards, group.grades.statuses, None)


def test_means_over_samples_and_per_source():
    rows = [
        attempts("chart", (1.0, 0.0, 0.0, 0.0), (4, 6, 8, 2)),
        attempts("chart", (1.0, 1.0, 1.0, 0.0), (10, 10, 10, 10)),
        attempts("boxes", (0.6, 0.4, 0.0, 0.0), (1, 2, 3, 4)),  # an IoU from 0.5 counts as right
        attempts("boxes", (0.0, 0.0, 0.0, 0.0), (5, 5, 5, 5)),
    ]
    result = summarise(rows, 4)
    assert result["mean_at_4"] == pytest.approx((1 / 4 + 3 / 4 + 1 / 4 + 0) / 4)
    assert result["pass_at_4"] == pytest.approx(3 / 4)
    assert result["failed_rewards"] == 0
    assert list(result["tasks"]) == ["boxes", "chart"]
    assert result["tasks"]["chart"] == pytest.approx(
        {"mean_at_4": 0.5, "pass_at_4": 1.0, "count": 2, "length_mean": 60 / 8}
    )
    assert result["tasks"]["boxes"] == pytest.approx(
        {"mean_at_4": 0.125, "pass_at_4": 0.5, "count": 2, "length_mean": 30 / 8}
    )


def test_failed_graders_are_in_no_mean():
    rows = [
        attempts("chart", (1.0, None, 0.0, None)),  # 1 of 2; two valid attempts say nothing of Pass@4
        attempts("chart", (0.0, 0.0, 0.0, 1.0)),  # 1 of 4; Pass@4 is 1
        attempts("chart", (None, None, None, None)),  # left out
        attempts("chart", (0.0, None, 0.0, 0.0)),
    ]
    result = summarise(rows, 4)
    assert result["mean_at_4"] == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)
    assert result["pass_at_4"] == pytest.approx(1.0)  # of the second row alone: the only one with 4 valid attempts
    assert result["failed_rewards"] == 7
    assert result["tasks"]["chart"]["count"] == 4


def test_pass_at_k_below_the_number_of_attempts():
    result = summarise([attempts("chart", (1.0, 0.0, 0.0, 0.0))], 2)
    assert result["pass_at_2"] == pytest.approx(0.5)  # 1 - C(3, 2) / C(4, 2) = 1 - 3/6


def test_without_any_valid_reward_there_is_no_number():
    result = summarise([attempts("chart", (None, None))], 2)
    assert math.isnan(result["mean_at_2"]) and math.isnan(result["pass_at_2"])
    assert result["failed_rewards"] == 2


def test_seeds_depend_on_run_and_sample_only():
    # `printf '7|chart_1' | sha256sum` begins with e9620b17; 0xe9620b17 modulo 2^30 is 694291223.
    assert attempt_seed(7, "chart_1") == 694291223
    assert len({attempt_seed(seed, f"s{i}") for seed in range(10) for i in range(100)}) == 1000
    assert all(0 <= attempt_seed(0, f"s{i}") < 2**30 for i in range(100))
