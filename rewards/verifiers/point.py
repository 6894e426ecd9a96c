"""Points: one point inside the gold box, or inside any one of several; or a point for every box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.boxes import Box, Point, area, parse_boxes, parse_points, scale_factors
from rewards.extract import on_final_answer

MAX_POINTS = 128
POINT_RULES = ("one", "all")

EXAMPLES = (
    Example(
        "[100, 100, 500, 400]",
        right=(
            "<answer>(300, 250)</answer>",
            "<answer>[100, 400]</answer>",
            '<answer>{"point_2d": [499.5, 101], "label": "cat 2"}</answer>',
            '<answer><point x="300" y="250" alt="cat">cat</point></answer>',
        ),
        wrong=(
            "<answer>(501, 250)</answer>",
            "<answer>(250, 300), (600, 250)</answer>",
            "<answer>[100, 100, 500, 400]</answer>",
            "<answer>(nan, 250)</answer>",
            "<answer>(inf, 250)</answer>",
            "<answer>in the middle</answer>",
            "<answer>" + "(300, 250) " * 1_500 + "</answer>",
        ),
    ),
    Example(
        "[[0, 0, 10, 10], [20, 20, 40, 40]]",
        right=("<answer>(5, 5)</answer>", "<answer>(30, 30)</answer>"),
        wrong=("<answer>(15, 15)</answer>", "<answer>(5, 5), (30, 30)</answer>"),
    ),
    Example(
        "[[0, 0, 10, 10], [20, 20, 40, 40]]",
        right=("<answer>(30, 30), (5, 5)</answer>",),
        wrong=("<answer>(15, 15)</answer>", "<answer>everywhere</answer>"),
        sample={"points": "all"},
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for a single finite point (x, y) on or inside a gold box; several points are no answer to one question.

    With `points: all` in the row every gold box wants a point of its own: the value is the number of points that can
    be paired one-to-one with a box around them, over the larger of the two numbers, so that extra points cost as much
    as missing ones. Coordinates are those of `rewards.boxes.scale_factors`.
    """
    rule = sample.get("points", "one")
    if rule not in POINT_RULES:
        return failed("error", f"the row's points is {rule!r}; use one of {', '.join(POINT_RULES)}")
    try:
        x_factor, y_factor = scale_factors(sample)
    except ValueError as exc:
        return failed("error", str(exc))
    golds = [gold.box for gold in parse_boxes(answer)]
    if not golds or len(golds) > MAX_POINTS or any(area(box) <= 0 for box in golds):
        return failed("invalid_gold", f"{shorten(answer)!r} is not a list of boxes [x1, y1, x2, y2] with an area")
    points = [(x * x_factor, y * y_factor) for x, y in parse_points(prediction)]
    if not points or len(points) > MAX_POINTS or (rule == "one" and len(points) > 1):
        wanted = "one point (x, y)" if rule == "one" else f"a list of at most {MAX_POINTS} points"
        return graded(0.0, f"{shorten(prediction)!r} is not {wanted}")
    found = float(any(_inside(points[0], box) for box in golds)) if rule == "one" else _paired(points, golds)
    return graded(found, f"{shorten(prediction)!r} against {shorten(answer)!r}")


def _inside(point: Point, box: Box) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _paired(points: list[Point], boxes: list[Box]) -> float:
    from scipy.optimize import linear_sum_assignment

    hits = [[float(_inside(point, box)) for box in boxes] for point in points]
    rows, columns = linear_sum_assignment(hits, maximize=True)
    return sum(hits[i][j] for i, j in zip(rows, columns, strict=True)) / max(len(points), len(boxes))


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load SciPy's assignment solver, which `points: all` needs."""
    _paired([(0.0, 0.0)], [(0.0, 0.0, 1.0, 1.0)])
