"""The learning rate over the steps, worked by hand."""

from __future__ import annotations

import pytest

from rl.config.learner import OptimizerConfig
from rl.learner.optimizer import lr_factor


def factors(total: int, **settings) -> list[float]:
    config = OptimizerConfig(**settings)
    return [lr_factor(step, total, config) for step in range(total + 1)]


def test_constant():
    assert factors(4) == [1.0] * 5


def test_warm_up_climbs_to_one_at_its_last_step():
    assert factors(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]


def test_linear():
    assert factors(4, schedule="linear") == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_linear_after_warm_up_to_a_final_fraction():
    # 4 steps down after 2 of warm-up, from 1 to 0.2: 0.2 + 0.8 * (1, 3/4, 1/2, 1/4, 0).
    expected = [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert factors(6, schedule="linear", warmup_steps=2, final_lr_fraction=0.2) == pytest.approx(expected)


def test_cosine():
    # (1 + cos(pi x)) / 2 at 0, 1/4, 1/2, 3/4, 1: cos(pi / 4) = sqrt(1/2).
    half = 0.5**0.5
    expected = [1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0]
    assert factors(4, schedule="cosine") == pytest.approx(expected)
    assert factors(4, schedule="cosine", final_lr_fraction=0.5) == pytest.approx([0.5 + 0.5 * f for f in expected])


def test_past_the_end_it_stays():
    config = OptimizerConfig(schedule="cosine", final_lr_fraction=0.1)
    assert lr_factor(50, 10, config) == pytest.approx(0.1)


def test_all_steps_are_warm_up():
    assert factors(2, schedule="linear", warmup_steps=2)[:2] == [0.5, 1.0]
