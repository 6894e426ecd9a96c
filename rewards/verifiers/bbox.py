"""Boxes: the intersection over union in [0, 1]; over several boxes the best one-to-one matching, per expected box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.boxes import (
    LabelledBox,
    area,
    generalised_iou,
    intersection_over_union,
    parse_boxes,
    scale_factors,
    scaled,
)
from rewards.extract import on_final_answer

MAX_BOXES = 128
METRICS = {"iou": intersection_over_union, "giou": generalised_iou}

_TWO = "[[0, 0, 10, 10], [20, 20, 40, 40]]"
_CATS = '[{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 20, 40, 40], "label": "dog"}]'

EXAMPLES = (
    Example(
        "[100, 100, 500, 400]",
        right=(
            "<answer>[100, 100, 500, 400]</answer>",
            "<answer>[500, 400, 100, 100]</answer>",
            "<answer><box>(100,100),(500,400)</box></answer>",
            '<answer>```json\n[{"bbox_2d": [100, 100, 500, 400], "label": "cat (1)"}]\n```</answer>',
            r"\boxed{[100.0, 100, 500, 400]}",
        ),
        wrong=(
            "<answer>[600, 500, 900, 900]</answer>",
            "<answer>[100, 100, 100, 100]</answer>",
            "<answer>[100, 100, 500, 100]</answer>",
            "<answer>[nan, 100, 500, 400]</answer>",
            "<answer>[-inf, -inf, inf, inf]</answer>",
            "<answer>[-1e300, -1e300, 1e300, 1e300]</answer>",
            "<answer>[100, 100, 500]</answer>",
            "<answer>the cat</answer>",
            "<answer>" + "[100, 100, 500, 400], " * 500 + "</answer>",
            "<answer>" + '{"a":' * 5_000 + "</answer>",
            "<answer>[100, 100, 500, 400]</answer> or <answer>[0, 0, 9, 9]</answer>",
        ),
    ),
    Example(_TWO, right=("<answer>[[20,20,40,40],[0,0,10,10]]</answer>",), wrong=("<answer>[50,50,60,60]</answer>",)),
    Example(
        _CATS,
        right=(f"<answer>{_CATS}</answer>", f"<answer>{_TWO}</answer>"),
        wrong=(
            '<answer>[{"bbox_2d": [0, 0, 10, 10], "label": "dog"}, {"bbox_2d": [20, 20, 40, 40], "label": "cat"}]'
            "</answer>",
        ),
    ),
    Example(
        "[64, 48, 320, 240]",
        right=("<answer>[100, 100, 500, 500]</answer>",),
        wrong=("<answer>[640, 480, 1000, 1000]</answer>",),
        sample={"coordinates": "0-1000", "answer_coordinates": "pixel", "image_size": [640, 480]},
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """Sum of the matched overlaps over the larger number of boxes.

    The matching is one-to-one and has the greatest sum. With n boxes where m are expected the sum is divided by
    max(n, m): a missing box and an extra one each count as an overlap of 0, so a further guess pays only where it
    overlaps more than the mean of those that are there, and repeating a box never does.

    The row may say `bbox_metric` (`iou`, the default, or `giou`, see `rewards.boxes.generalised_iou`) and which
    coordinates its answers use (see `rewards.boxes.scale_factors`); without, both sides are taken to use the same.
    Boxes are not clipped to the picture. Swapped corners are put in order. A box without area, or with a coordinate
    that is not finite or beyond a million, overlaps nothing; as gold it makes the row invalid. Where the gold boxes
    have different labels, a predicted box that carries one of them matches no box of another.
    """
    metric = sample.get("bbox_metric", "iou")
    if metric not in METRICS:
        return failed("error", f"the row's bbox_metric is {metric!r}; use one of {', '.join(METRICS)}")
    try:
        factors = scale_factors(sample)
    except ValueError as exc:
        return failed("error", str(exc))
    golds = parse_boxes(answer)
    if not golds or len(golds) > MAX_BOXES or any(area(gold.box) <= 0 for gold in golds):
        return failed("invalid_gold", f"{shorten(answer)!r} is not a list of boxes [x1, y1, x2, y2] with an area")
    boxes = parse_boxes(prediction)
    if not boxes:
        return graded(0.0, f"{shorten(prediction)!r} is not a list of boxes [x1, y1, x2, y2]", iou_50=0.0)
    many = max(len(boxes), len(golds))
    if many > MAX_BOXES:
        return graded(0.0, f"{len(boxes)} boxes where {len(golds)} are expected: too many to match", iou_50=0.0)
    boxes = [LabelledBox(scaled(box, factors), label) for box, label in boxes]
    pairs = _best_matching(_overlaps(boxes, golds, metric))
    value = min(1.0, sum(overlap for _, _, overlap in pairs) / many)
    hits = sum(overlap > 0 and intersection_over_union(boxes[i].box, golds[j].box) >= 0.5 for i, j, overlap in pairs)
    return graded(value, f"{metric} {value:.3f}, {len(boxes)} boxes against {len(golds)}", iou_50=hits / many)


def _overlaps(boxes: list[LabelledBox], golds: list[LabelledBox], metric: str) -> list[list[float]]:
    """Overlap of each predicted box (rows) with each gold box (columns); 0 where their labels say different things."""
    measure = METRICS[metric]
    labels = {gold.label for gold in golds}

    def contradict(box: LabelledBox, gold: LabelledBox) -> bool:
        return box.label is not None and box.label in labels and gold.label is not None and box.label != gold.label

    return [[0.0 if contradict(box, gold) else measure(box.box, gold.box) for gold in golds] for box in boxes]


def _best_matching(overlaps: list[list[float]]) -> list[tuple[int, int, float]]:
    """(row, column, overlap) of the one-to-one matching with the greatest sum."""
    if len(overlaps) == len(overlaps[0]) == 1:  # the common case needs no library
        return [(0, 0, overlaps[0][0])]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return [(i, j, overlaps[i][j]) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)]


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load SciPy's assignment solver, which answers with several boxes need."""
    _best_matching([[0.0, 0.0]])
