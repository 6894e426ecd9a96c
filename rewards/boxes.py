"""Boxes and points in the spellings that vision models use, read without evaluating anything.

`[x1, y1, x2, y2]`, `(x1, y1), (x2, y2)`, lists of these, JSON such as `{"bbox_2d": [...]}`, or four bare numbers.
"""

from __future__ import annotations

import math
import re

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2; a box that can't be placed is (0, 0, 0, 0)."""

MAX_CHARS = 20_000
MAX_COORDINATE = 1e6

_GROUP = re.compile(r"[\[(]([^\[\]()]*)[\])]")
_NUMBER = re.compile(
    r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,4})?|[+-]?(?:nan|inf|infinity)", re.I
)
_STRING = re.compile(r'"[^"]*"')
_NOWHERE: Box = (0.0, 0.0, 0.0, 0.0)


def parse_boxes(text: str) -> list[Box]:
    """The boxes of an answer with their corners in order; empty where the text is not a list of boxes."""
    groups = _number_groups(text)
    boxes: list[Box] = []
    corner: list[float] = []
    for group in groups or []:
        if len(group) % 4 == 0 and not corner:
            boxes += [_ordered(group[i : i + 4]) for i in range(0, len(group), 4)]
        elif len(group) == 2:
            corner = corner + group
            if len(corner) == 4:
                boxes.append(_ordered(corner))
                corner = []
        else:
            return []
    return [] if corner else boxes


def parse_point(text: str) -> tuple[float, float] | None:
    """The one finite point (x, y) that an answer is, else None."""
    groups = _number_groups(text)
    if groups is None or len(groups) != 1 or len(groups[0]) != 2:
        return None
    x, y = groups[0]
    return (x, y) if math.isfinite(x) and math.isfinite(y) else None


def area(box: Box) -> float:
    """Square of the coordinate unit."""
    return (box[2] - box[0]) * (box[3] - box[1])


def intersection_over_union(a: Box, b: Box) -> float:
    """In [0, 1]; 0 where a box has no area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0 or area(a) <= 0 or area(b) <= 0:
        return 0.0
    inter = width * height
    return min(1.0, inter / (area(a) + area(b) - inter))


def _ordered(four: list[float]) -> Box:
    if not all(math.isfinite(value) and abs(value) <= MAX_COORDINATE for value in four):
        return _NOWHERE
    x1, y1, x2, y2 = four
    return (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))


def _number_groups(text: str) -> list[list[float]] | None:
    """The innermost bracketed groups of numbers; without brackets the whole text as one; None if there is neither."""
    if len(text) > MAX_CHARS:
        return None
    if "{" in text:
        text = _STRING.sub(" ", text)  # JSON: keys and labels may hold digits and brackets of their own
    found = [_numbers(group) for group in _GROUP.findall(text)]
    groups = [group for group in found if group]
    if groups:
        return groups
    whole = _numbers(text.strip().strip("[]()"))
    return [whole] if whole else None


def _numbers(text: str) -> list[float] | None:
    words = [word for word in re.split(r"[,;\s]+", text) if word]
    if not words or not all(_NUMBER.fullmatch(word) for word in words):
        return None
    return [float(word) for word in words]
