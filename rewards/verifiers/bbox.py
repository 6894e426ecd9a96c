"""Boxes: the intersection over union in [0, 1]; over several boxes the best one-to-one matching, per expected box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import RewardResult, failed, graded, shorten
from rewards.boxes import area, intersection_over_union, parse_boxes
from rewards.extract import on_final_answer

MAX_BOXES = 128


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """Sum of the matched IoUs over the larger number of boxes, so that neither missing nor extra boxes are free.

    Both sides use the same coordinates: 0-1000 or pixels. Swapped corners are put in order. A box without area, or
    with a coordinate that is not finite, scores 0; as gold it makes the row invalid.
    """
    golds = parse_boxes(answer)
    if not golds or len(golds) > MAX_BOXES or any(area(box) <= 0 for box in golds):
        return failed("invalid_gold", f"{shorten(answer)!r} is not a list of boxes [x1, y1, x2, y2] with an area")
    boxes = parse_boxes(prediction)
    if not boxes:
        return graded(0.0, f"{shorten(prediction)!r} is not a list of boxes [x1, y1, x2, y2]")
    many = max(len(boxes), len(golds))
    if many > MAX_BOXES:
        return graded(0.0, f"{len(boxes)} boxes where {len(golds)} are expected: too many to match")
    overlaps = [[intersection_over_union(box, gold) for gold in golds] for box in boxes]
    matched = _best_matching(overlaps)
    value = min(1.0, sum(matched) / many)
    hits = sum(iou >= 0.5 for iou in matched) / many
    return graded(value, f"IoU {value:.3f} over {len(boxes)} against {len(golds)} boxes", iou_50=hits)


def _best_matching(overlaps: list[list[float]]) -> list[float]:
    """The IoUs of the one-to-one matching with the greatest sum."""
    if len(overlaps) == 1:  # the common case needs no library
        return [max(overlaps[0])]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [overlaps[i][j] for i, j in zip(rows, columns, strict=True)]


verify = on_final_answer(grade)
