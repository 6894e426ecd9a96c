"""Boxes and points in the spellings that vision models use, read without evaluating anything.

Boxes: `[x1, y1, x2, y2]`, `(x1, y1), (x2, y2)`, `<box>` tags around either, lists of these, four bare numbers, and
JSON objects such as `{"bbox_2d": [...], "label": "cat"}` or `{"x1": ..., "y1": ..., "x2": ..., "y2": ...}`, bare or in
a code fence. Points: the same with two numbers, `{"point_2d": [...]}`, `<point x="..." y="...">`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rewards.text import folded

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2; a box that can't be placed is (0, 0, 0, 0)."""
Point = tuple[float, float]

MAX_CHARS = 20_000
MAX_COORDINATE = 1e6
EXTENTS: dict[str, float | None] = {"pixel": None, "0-1": 1.0, "0-100": 100.0, "0-1000": 1000.0}
"""Coordinates by name: what the full side of the picture is, None for its size in pixels."""

_GROUP = re.compile(r"[\[(]([^\[\]()]*)[\])]")
_NUMBER_TEXT = r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,4})?|[+-]?(?:nan|infinity|inf)"
_NUMBER = re.compile(_NUMBER_TEXT, re.I)
_XY = re.compile(
    rf"\bx\d{{0,3}}\"?\s?[=:]\s?\"?({_NUMBER_TEXT})\"?[\s,;]{{0,4}}\"?y\d{{0,3}}\"?\s?[=:]\s?\"?({_NUMBER_TEXT})", re.I
)
_STRING = re.compile(r'"[^"]*"|\'[^\']*\'')
_BOX_TAG = re.compile(r"<(/?)\|?box(?:_start|(_end))?\|?>", re.I)
_FENCE = re.compile(r"```[\w-]{0,20}\s(.*)```", re.DOTALL)
_NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)
_BOX_KEYS = ("bbox_2d", "bbox", "box", "box_2d", "bounding_box")
_CORNER_KEYS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"), ("x_min", "y_min", "x_max", "y_max"))
_LABEL_KEYS = ("label", "name", "category", "class")


class LabelledBox(NamedTuple):
    """A box, and the folded label that was written with it, if any."""

    box: Box
    label: str | None = None


def parse_boxes(text: str) -> list[LabelledBox]:
    """The boxes of an answer with their corners in order; empty where the text is not a list of boxes."""
    if len(text) > MAX_CHARS:
        return []
    found = _boxes_of_json(text) if "{" in text else None
    return found if found is not None else _boxes_of_groups(_BOX_TAG.sub(_bracket, text))


def parse_points(text: str) -> list[Point]:
    """The points of an answer; empty where the text is not a list of finite points (x, y)."""
    if len(text) > MAX_CHARS:
        return []
    pairs = [(float(x), float(y)) for x, y in _XY.findall(text)]
    if not pairs:
        groups = _number_groups(text)
        if any(len(group) != 2 for group in groups):
            return []
        pairs = [(group[0], group[1]) for group in groups]
    return pairs if all(_placeable(pair) for pair in pairs) else []


def scale_factors(sample: Mapping[str, Any]) -> tuple[float, float]:
    """What x and y of a prediction are multiplied with to be in the coordinates of the gold answer.

    The row says `coordinates`, those that its prompt asks for, and `answer_coordinates`, those of its gold answer, each
    one of `EXTENTS`; a missing one is like the other. Pixels against a scale need `image_size`, [width, height].

    Raises:
        ValueError: unknown coordinates, or no usable image size where one is needed.
    """
    asked = sample.get("coordinates") or sample.get("answer_coordinates")
    given = sample.get("answer_coordinates") or asked
    for name in (asked, given):
        if name is not None and name not in EXTENTS:
            raise ValueError(f"the row's coordinates are {name!r}; use one of {', '.join(EXTENTS)}")
    if asked is None or given is None or asked == given:
        return (1.0, 1.0)
    size = sample.get("image_size")
    if not (isinstance(size, (list, tuple)) and len(size) == 2 and all(_is_side(side) for side in size)):
        if "pixel" in (asked, given):
            raise ValueError(
                f"boxes in {asked} against a gold answer in {given} need the picture's size, and the row's image_size "
                f"is {size!r}; give [width, height] in pixels"
            )
        size = (1.0, 1.0)
    width, height = (float(side) for side in size)
    asked_extent, given_extent = EXTENTS[asked], EXTENTS[given]
    return (
        (given_extent or width) / (asked_extent or width),
        (given_extent or height) / (asked_extent or height),
    )


def scaled(box: Box, factors: tuple[float, float]) -> Box:
    x, y = factors
    return (box[0] * x, box[1] * y, box[2] * x, box[3] * y)


def area(box: Box) -> float:
    """Square of the coordinate unit."""
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection_over_union(a: Box, b: Box) -> float:
    """In [0, 1]; 0 where a box has no area."""
    if area(a) <= 0 or area(b) <= 0:
        return 0.0
    shared = _intersection(a, b)
    return min(1.0, shared / (area(a) + area(b) - shared))


def generalised_iou(a: Box, b: Box) -> float:
    """GIoU (Rezatofighi et al. 2019, arXiv 1902.09630) mapped from [-1, 1] to [0, 1]; 0 where a box has no area.

    GIoU = IoU - (C - U) / C with C the area of the smallest box around both and U that of their union. Boxes that
    touch get 0.5, disjoint ones less the farther they are apart.
    """
    if area(a) <= 0 or area(b) <= 0:
        return 0.0
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    shared = _intersection(a, b)
    union = area(a) + area(b) - shared
    giou = shared / union - (around - union) / around
    return min(1.0, max(0.0, (1.0 + giou) / 2.0))


def _intersection(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _ordered(four: list[float]) -> Box:
    if not _placeable(four):
        return _NOWHERE
    x1, y1, x2, y2 = four
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _placeable(values: list[float] | Point) -> bool:
    return all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in values)


def _is_side(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MAX_COORDINATE


def _boxes_of_json(text: str) -> list[LabelledBox] | None:
    """The boxes of one JSON object or a list of them; None for anything else."""
    fence = _FENCE.search(text)
    try:
        data = json.loads(fence.group(1) if fence is not None else text)
    except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, or nested thousands deep
        return None
    items = data if isinstance(data, list) else [data]
    found = [_box_of_object(item) for item in items]
    return None if None in found or not found else [box for box in found if box is not None]


def _box_of_object(item: object) -> LabelledBox | None:
    if not isinstance(item, dict):
        return None
    corners = next((item[key] for key in _BOX_KEYS if key in item), None)
    if corners is None:
        corners = next(([item[key] for key in keys] for keys in _CORNER_KEYS if all(key in item for key in keys)), None)
    if not (isinstance(corners, list) and len(corners) == 4 and all(_is_json_number(value) for value in corners)):
        return None
    label = next((item[key] for key in _LABEL_KEYS if isinstance(item.get(key), str)), None)
    four = [float(value) if abs(value) <= MAX_COORDINATE else math.inf for value in corners]
    return LabelledBox(_ordered(four), folded(label) if label is not None else None)


def _is_json_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _boxes_of_groups(text: str) -> list[LabelledBox]:
    boxes: list[Box] = []
    corner: list[float] = []
    for group in _number_groups(text):
        if len(group) % 4 == 0 and not corner:
            boxes += [_ordered(group[i : i + 4]) for i in range(0, len(group), 4)]
        elif len(group) == 2:
            corner = corner + group
            if len(corner) == 4:
                boxes.append(_ordered(corner))
                corner = []
        else:
            return []
    return [] if corner else [LabelledBox(box) for box in boxes]


def _bracket(tag: re.Match[str]) -> str:
    return "] " if tag.group(1) or tag.group(2) else " ["


def _number_groups(text: str) -> list[list[float]]:
    """The innermost bracketed groups of numbers; without brackets the whole text as one; empty if there is neither."""
    if "{" in text:
        text = _STRING.sub(" ", text)  # keys and labels may hold digits and brackets of their own
    found = [_numbers(group) for group in _GROUP.findall(text)]
    groups = [group for group in found if group]
    if groups:
        return groups
    whole = _numbers(text.strip().strip("[]()"))
    return [whole] if whole else []


def _numbers(text: str) -> list[float] | None:
    words = [word for word in re.split(r"[,;\s]+", text) if word]
    if not words or not all(_NUMBER.fullmatch(word) for word in words):
        return None
    return [float(word) for word in words]
