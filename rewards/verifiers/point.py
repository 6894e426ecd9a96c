"""Points: one point inside the gold box, or inside any one of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import RewardResult, failed, graded, shorten
from rewards.boxes import area, parse_boxes, parse_point
from rewards.extract import on_final_answer


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for a single finite point (x, y) on or inside a gold box; several points are no answer to one question."""
    golds = parse_boxes(answer)
    if not golds or any(area(box) <= 0 for box in golds):
        return failed("invalid_gold", f"{shorten(answer)!r} is not a list of boxes [x1, y1, x2, y2] with an area")
    point = parse_point(prediction)
    if point is None:
        return graded(0.0, f"{shorten(prediction)!r} is not one point (x, y)")
    x, y = point
    inside = any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in golds)
    return graded(float(inside), f"({x:g}, {y:g}) against {shorten(answer)!r}")


verify = on_final_answer(grade)
