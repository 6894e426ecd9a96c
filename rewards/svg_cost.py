"""What a drawing would cost to render, bounded from above before a renderer sees it.

Copies and references are followed as often as they are drawn. The prices are microseconds of one core for the worst
that an element can do on the canvas, measured with resvg 0.48; a real drawing takes far less.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CANVAS = 96
"""Side of the picture in pixels."""
MAX_COST_US = 300_000.0
MAX_DEPTH = 100
"""Elements within elements, copies and references followed: the renderer recurses."""
MAX_SPREAD = 1e6
"""Pixels from which curves and thick lines take seconds, then memory, then end the process."""

SVG_NS = "http://www.w3.org/2000/svg"
HREF = "{http://www.w3.org/1999/xlink}href"
SHAPES = frozenset({"path", "rect", "circle", "ellipse", "line", "polyline", "polygon"})
GROUPS = frozenset({"svg", "g", "defs", "symbol", "use", "a", "switch", "clipPath", "mask", "marker"})

_POSITIONS = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "width", "height", "refX", "refY")
_SIZES = (*_POSITIONS, "stroke-width", "markerWidth", "markerHeight", "stroke-dashoffset")

_SHAPE = 100.0
_GROUP = 20.0
_NUMBER = 3.0
"""Of a coordinate that is filled, or drawn with a line at least a pixel wide."""
_HAIRLINE = 40.0
"""Of a coordinate of a line: half a segment across the canvas, thinner than a pixel, which is what takes longest."""
_DASH = 1.0
_LAYER = 400.0
"""Of an element that is drawn on a canvas of its own: opacity, blending, isolation."""
_RULE = 0.005
"""Of a character of a style sheet, for each element that it is matched against."""
_NESTED_SVG = 1_000.0
_REFERENCE = {
    "linearGradient": 350.0,
    "radialGradient": 350.0,
    "clipPath": 4_000.0,
    "mask": 6_000.0,
    "symbol": 3_000.0,
    "marker": 3_000.0,
    "svg": 3_000.0,
}

_URL = re.compile(r"url\(\s{0,8}[\"']?#([^)\"']{1,200}?)[\"']?\s{0,8}\)")
_FIGURE = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_MEASURE = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Z%]*)")
_STYLE_MEASURE = re.compile(r"(?<![\w#.+-])([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([a-zA-Z%]*)")
_TRANSFORM = re.compile(r"(matrix|translate|scale|rotate|skewX|skewY)\s*\(([^()]*)\)")
_RELATIVE = re.compile(r"[a-df-zTS]")
_IS_LAYER = re.compile(r"(?<![\w-])(?:opacity|mix-blend-mode|isolation)\b")
_STROKE = re.compile(r"(?<![\w-])stroke\s*:\s*(?!none)")
DASHES = re.compile(r"stroke-dasharray\s*:\s*([^;}]*)")


@dataclass(frozen=True, slots=True)
class _Bound:
    """What is drawn for an element, everything that it holds and refers to included."""

    cost_us: float
    height: int
    spread: float
    """Bound of all lengths and distances, in units of the element's parent."""


def is_affordable(root: Any, elements: Sequence[Any]) -> bool:
    """False for a drawing that refers to itself, is nested too deep, reaches too far, or takes too long to render.

    Args:
        root: the outermost `svg` element; it has a view box and is fitted to the canvas.
        elements: it and all elements within, none of them an image, text, filter or pattern; their view boxes are
            valid.
    """
    try:
        bound = _Bounds(elements).of(root, 0)
    except _TooDeep:
        return False
    return bound.cost_us <= MAX_COST_US and bound.spread <= MAX_SPREAD


class _TooDeep(Exception):
    """An element is drawn within itself, or more than `MAX_DEPTH` levels deep."""


class _Bounds:
    """The bounds of a document's elements, each worked out once."""

    def __init__(self, elements: Sequence[Any]) -> None:
        self._by_id = {element.get("id"): element for element in reversed(elements) if element.get("id")}
        self._prices = _Prices(elements)
        self._known: dict[Any, _Bound] = {}
        self._open: set[Any] = set()

    def of(self, element: Any, depth: int) -> _Bound:
        if element in self._open or depth > MAX_DEPTH:
            raise _TooDeep
        if element not in self._known:
            self._open.add(element)
            self._known[element] = self._bound(element, depth)
            self._open.remove(element)
        if depth + self._known[element].height > MAX_DEPTH:
            raise _TooDeep
        return self._known[element]

    def _bound(self, element: Any, depth: int) -> _Bound:
        cost, height, spread = self._prices.own(element), 0, _own_spread(element)
        spread = max(spread, self._prices.style_spread)
        for child in element:
            inner = self.of(child, depth + 1)
            cost, height, spread = cost + inner.cost_us, max(height, inner.height + 1), max(spread, inner.spread)
        for name, times in _references(element):
            target = self._by_id.get(name)
            if target is not None:
                inner = self.of(target, depth + 1)
                cost += times * (inner.cost_us + _REFERENCE.get(local_name(target), _GROUP))
                height, spread = max(height, inner.height + 1), max(spread, inner.spread)
        return _Bound(min(cost, 1e12), height, min(spread * _magnification(element), 1e30))


class _Prices:
    """What single elements cost, given what the document's style sheets and groups may do to each of them."""

    def __init__(self, elements: Sequence[Any]) -> None:
        sheets = " ".join(element.text or "" for element in elements if local_name(element) == "style")
        groups = [element for element in elements if local_name(element) in GROUPS]
        paints = (f"{group.get('fill')} {group.get('stroke')} {group.get('style')}" for group in groups)
        self._count = len(elements)
        self._every = _REFERENCE["radialGradient"] if _URL.search(sheets) or any(map(_URL.search, paints)) else 0.0
        if _IS_LAYER.search(sheets):
            self._every += _LAYER
        self._all_stroked = any(map(_is_stroked, groups)) or _STROKE.search(sheets) is not None
        self._dash = _shortest_dash(elements, sheets)
        self.style_spread = _largest(_STYLE_MEASURE.findall(sheets))

    def own(self, element: Any) -> float:
        """Without children and references."""
        name = local_name(element)
        price = _NESTED_SVG if name == "svg" else _GROUP
        if name in SHAPES:
            numbers = _coordinates(element)
            stroked = self._all_stroked or _is_stroked(element)
            price = _SHAPE + self._every + len(numbers) * (_HAIRLINE if stroked else _NUMBER)
            if self._dash is not None:
                # No path is longer than a few times the sum of its coordinates, arcs and jumps back included.
                price += _DASH * 7 * sum(map(abs, numbers)) / self._dash
        elif name == "style":
            price += _RULE * len(element.text or "") * self._count
        if _IS_LAYER.search(f"{' '.join(element.keys())} {element.get('style', '')}"):
            price += _LAYER
        return price


def local_name(element: Any) -> str:
    """The tag of an SVG element, "" for one of another name space."""
    tag = element.tag
    prefix = f"{{{SVG_NS}}}"
    return tag[len(prefix) :] if isinstance(tag, str) and tag.startswith(prefix) else ""


def _references(element: Any) -> list[tuple[str, float]]:
    """(id, how often it is drawn) of every reference."""
    found: list[tuple[str, float]] = []
    for key, value in element.attrib.items():
        if key in ("href", HREF):
            found.append((value.strip()[1:], 1.0))
        elif "url(" in value:
            everywhere = key in ("marker", "marker-mid") or (key == "style" and "marker" in value)
            times = 2.0 + len(_coordinates(element)) / 2 if everywhere else 1.0
            found += [(name, times) for name in _URL.findall(value)]
    return found


def _coordinates(element: Any) -> list[float]:
    values = (element.get(key) for key in ("d", "points", *_POSITIONS))
    return [float(number) for value in values if value for number in _FIGURE.findall(value)]


def _is_stroked(element: Any) -> bool:
    return element.get("stroke", "none") != "none" or _STROKE.search(element.get("style", "")) is not None


def _shortest_dash(elements: Sequence[Any], sheets: str) -> float | None:
    """The least sum of a pattern of dashes, None without one; next to nothing where it can't be told."""
    patterns = DASHES.findall(sheets)
    for element in elements:
        patterns += DASHES.findall(element.get("style", ""))
        patterns.append(element.get("stroke-dasharray", ""))
    sums = [0.0 if "%" in text else sum(map(float, _FIGURE.findall(text))) for text in patterns if _FIGURE.search(text)]
    return max(min(sums), 1e-9) if sums else None


def _own_spread(element: Any) -> float:
    """Bound of the lengths and positions that an element itself has, in its own units."""
    lengths = [_largest(_MEASURE.findall(element.get(key, ""))) for key in _SIZES]
    lengths.append(_largest(_STYLE_MEASURE.findall(element.get("style", ""))))
    for key in ("d", "points"):
        text = element.get(key, "")
        numbers = [abs(float(number)) for number in _FIGURE.findall(text)]
        # Relative commands add up, and smooth curves carry the distance of their last control point along.
        lengths.append(sum(numbers) if _RELATIVE.search(text) else max(numbers, default=0.0))
    transform = [numbers for _, numbers in _TRANSFORM.findall(element.get("transform", ""))]
    lengths += [abs(float(number)) for numbers in transform for number in _FIGURE.findall(numbers)]
    return max(lengths)


def _largest(measures: Sequence[tuple[str, str]]) -> float:
    """A bound of lengths (number, unit): `1in` is 96 px, `1em` the font's size, `1%` a part of the view box."""
    return max((abs(float(number)) * (1 if unit in ("", "px") else 100) for number, unit in measures), default=0.0)


def _magnification(element: Any) -> float:
    """Bound of how much larger what an element holds is on its parent; at least 1."""
    factor = 1.0
    for kind, inside in _TRANSFORM.findall(element.get("transform", "")):
        numbers = [abs(float(number)) for number in _FIGURE.findall(inside)]
        if kind in ("matrix", "scale"):
            factor *= max([1.0, *numbers[:4]])
        elif kind in ("skewX", "skewY") and numbers:
            factor *= 1 + abs(math.tan(math.radians(numbers[0] % 180)))
    if "objectBoundingBox" in element.attrib.values():
        factor *= 1_000
    box = [float(number) for number in _FIGURE.findall(element.get("viewBox", ""))][2:]
    if not box:
        return factor
    return factor * max(1.0, (CANVAS if element.getparent() is None else 1_000) / max(min(box), 1e-9))
