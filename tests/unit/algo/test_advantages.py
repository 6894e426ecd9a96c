"""Advantages of batches; single groups are in tests/golden."""

from __future__ import annotations

import pytest

from rl.algo.advantages import batch_advantages, group_advantages
from rl.config.objective import AdvantageConfig

PLAIN = {"bias": 0.0, "scale": 1.0}


def test_without_batch_normalisation_groups_do_not_touch():
    config = AdvantageConfig(**PLAIN, group="mean", batch_normalise=False)
    assert batch_advantages([(1.0, 0.0), (0.0, 0.0, 3.0)], config) == [[0.5, -0.5], [-1.0, -1.0, 2.0]]


def test_batch_normalisation_comes_after_the_group():
    # mean: [0.5, -0.5] and [2, -2]; over the batch mean 0, variance (0.25 + 0.25 + 4 + 4) / 4 = 2.125.
    config = AdvantageConfig(**PLAIN, group="mean", batch_normalise=True)
    first, second = batch_advantages([(1.0, 0.0), (4.0, 0.0)], config)
    spread = 2.125**0.5
    assert first == pytest.approx([0.5 / spread, -0.5 / spread], abs=1e-5)
    assert second == pytest.approx([2 / spread, -2 / spread], abs=1e-5)


def test_failed_graders_keep_their_place():
    config = AdvantageConfig(**PLAIN, group="mean", batch_normalise=True)
    (group,) = batch_advantages([(None, 2.0, None, 0.0)], config)
    assert group[0] is None and group[2] is None
    assert [group[1], group[3]] == pytest.approx([1.0, -1.0], abs=1e-5)


def test_shift_and_scale_cancel_under_mean_std():
    rewards = (1.0, 0.0, 0.25, 0.0)
    plain = group_advantages(rewards, AdvantageConfig(**PLAIN))
    assert group_advantages(rewards, AdvantageConfig(bias=-0.5, scale=10.0)) == pytest.approx(plain, abs=1e-4)
