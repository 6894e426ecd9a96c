from __future__ import annotations

import pytest

from rl.metrics.files import Span
from rl.metrics.overlap import busy_in_bins, intersect, length, measure, union


def test_interval_arithmetic() -> None:
    assert union([(4, 5), (0, 2), (1, 3)]) == [(0, 3), (4, 5)]
    assert union([(0, 1), (1.5, 2)], gap=0.5) == [(0, 2)]
    assert intersect([(0, 3), (4, 6)], [(2, 5)]) == [(2, 3), (4, 5)]
    assert length([(0, 3), (4, 5)]) == 4
    assert busy_in_bins([(1, 3)], [0, 2, 4, 6]) == [0.5, 0.5, 0.0]


def test_who_waited_for_whom() -> None:
    """Generation 0-6 (two requests overlap), training 4-10; an evaluation before does not count."""
    spans = [
        Span("rollout-0", "eval", -5, 0),
        Span("rollout-0", "generate", 0, 4),
        Span("rollout-0", "generate", 2, 6),
        Span("rollout-0", "wait", 6, 10),
        Span("learner", "wait", 0, 4),
        Span("learner", "train", 4, 10),
    ]
    result = measure(spans)
    assert result is not None and result.window == (0, 10)
    assert result.busy == {"learner": 0.6, "rollout-0": 0.6}
    shares = (result.both, result.learner_waited, result.rollout_waited, result.neither)
    assert shares == pytest.approx((0.2, 0.4, 0.4, 0.0))


def test_several_workers_and_pauses() -> None:
    """rollout-0 works 0-2 and 3-4 (pause between), rollout-1 works 0-1, the learner 3-4."""
    spans = [
        Span("rollout-0", "generate", 0, 2),
        Span("rollout-0", "pause", 2, 3),
        Span("rollout-0", "generate", 3, 4),
        Span("rollout-1", "generate", 0, 1),
        Span("learner", "train", 3, 4),
    ]
    result = measure(spans)
    assert result is not None
    assert result.busy == {"learner": 0.25, "rollout-0": 0.75, "rollout-1": 0.25}
    assert result.rollout_busy == 0.5
    assert (result.both, result.learner_waited, result.rollout_waited, result.neither) == (0.25, 0.5, 0.0, 0.25)


def test_nothing_to_measure_without_training() -> None:
    assert measure([Span("rollout-0", "generate", 0, 1)]) is None
    assert measure([]) is None
