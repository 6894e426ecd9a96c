"""Boxes and points: IoU by hand, optimal matching against brute force, and boxes that are none."""

from __future__ import annotations

import pytest

from rewards import score
from rewards.base import RewardResult


def grade(gold: str, prediction: str, answer_type: str = "bbox") -> RewardResult:
    return score(f"<think>so</think><answer>{prediction}</answer>", gold, answer_type)


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("[0,0,10,10]", "[0, 0, 10, 10]", 1.0),
        ("[0,0,10,10]", "[5,0,15,10]", 1 / 3),  # 50 of 150
        ("[0,0,10,10]", "[0,0,5,10]", 0.5),
        ("[0,0,10,10]", "[10,10,0,0]", 1.0),  # swapped corners span the same region
        ("[10,10,0,0]", "[0,0,10,10]", 1.0),
        ("[0,0,10,10]", "[10,0,20,10]", 0.0),  # an edge in common
        ("[0,0,10,10]", "[5,5,5,5]", 0.0),
        ("[0,0,10,10]", "[0,0,0,10]", 0.0),
        ("[0,0,10,10]", "[nan,0,10,10]", 0.0),
        ("[0,0,10,10]", "[0,0,inf,inf]", 0.0),
        ("[0,0,10,10]", "[-1e999,0,10,10]", 0.0),
        ("[0,0,10,10]", "[0,0,1e300,1e300]", 0.0),
        ("[0,0,10,10]", "[0,0,10]", 0.0),
        ("[0,0,10,10]", "the whole image", 0.0),
        ("[0,0,10,10]", "<box>(0,0),(10,10)</box>", 1.0),
        ("[0,0,10,10]", "0 0 10 10", 1.0),
        ("[0,0,10,10]", '[{"bbox_2d": [0, 0, 10, 10], "label": "cat (1)"}]', 1.0),
        ("[[0,0,10,10],[20,20,30,30]]", "[[20,20,30,30],[0,0,10,10]]", 1.0),  # order is free
        ("[[0,0,10,10],[20,20,30,30]]", "[[0,0,10,10]]", 0.5),  # a missing box
        ("[0,0,10,10]", "[[0,0,10,10],[50,50,60,60]]", 0.5),  # a box too many
        ("[[0,0,10,10],[20,20,30,30]]", "[[0,0,10,10],[0,0,10,10]]", 0.5),  # one box can't match two
        ("[[0,0,10,10]]", "[0,0,0,0]," * 50 + "[0,0,10,10]", 1 / 51),
        ("[0,0,10,10]", "[0,0,10,10]" * 90_000, 0.0),
    ],
)
def test_iou(gold: str, prediction: str, value: float) -> None:
    result = grade(gold, prediction)
    assert result.status == "ok"
    assert result.value == pytest.approx(value)


def test_matching_is_optimal_where_greedy_is_not() -> None:
    # Boxes [0, a] x [0, 1] have the IoU min(a, b) / max(a, b). Gold 10 and 5, predicted 9 and 12.
    # Greedy takes 9 -> 10 (9/10) and leaves 12 -> 5 (5/12): 1.3167.
    # The best is 12 -> 10 (10/12) and 9 -> 5 (5/9): 1.3889.
    result = grade("[[0,0,10,1],[0,0,5,1]]", "[[0,0,9,1],[0,0,12,1]]")
    assert result.value == pytest.approx((10 / 12 + 5 / 9) / 2)


@pytest.mark.parametrize("gold", ["[5,5,5,5]", "[0,0,0,10]", "[nan,0,1,1]", "[0,0,inf,1]", "[1,2,3]", "", "a box"])
def test_a_degenerate_gold_is_no_score(gold: str) -> None:
    result = grade(gold, "[0,0,10,10]")
    assert (result.value, result.status) == (None, "invalid_gold")


@pytest.mark.parametrize(
    ("prediction", "value"),
    [
        ("(5, 5)", 1.0),
        ("[10, 0]", 1.0),  # the border belongs to the box
        ("5, 5", 1.0),
        ('{"point_2d": [5, 5]}', 1.0),
        ("(11, 5)", 0.0),
        ("(nan, 5)", 0.0),
        ("(inf, 5)", 0.0),
        ("(5, 5), (6, 6)", 0.0),
        ("(5, 5, 5)", 0.0),
        ("in the middle", 0.0),
    ],
)
def test_point(prediction: str, value: float) -> None:
    assert grade("[0,0,10,10]", prediction, "point").value == value


def test_point_in_any_of_several_boxes_and_no_gold_box() -> None:
    assert grade("[[0,0,1,1],[20,20,30,30]]", "(25, 25)", "point").value == 1.0
    assert grade("[3,3,3,3]", "(3, 3)", "point").status == "invalid_gold"
