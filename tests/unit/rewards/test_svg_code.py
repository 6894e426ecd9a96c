"""SVG drawings: likeness by hand, what is left out before rendering, and drawings that would harm the renderer."""

from __future__ import annotations

import numpy as np
import pytest

from rewards import score
from rewards.base import RewardResult
from rewards.pictures import SCALES, is_blank, likeness, render
from rewards.svg import MAX_CHARS, clean
from rewards.svg_cost import CANVAS

HOUSE = (
    '<rect x="20" y="45" width="60" height="45" fill="#c96"/><path d="M10 45L50 10L90 45Z" fill="#a33"/>'
    '<rect x="42" y="60" width="16" height="30" fill="#543"/>'
)
CHART = (
    '<path d="M10 5V90H95" fill="none" stroke="black"/><rect x="18" y="60" width="10" height="30" fill="#36c"/>'
    '<rect x="40" y="20" width="10" height="70" fill="#36c"/><rect x="62" y="50" width="10" height="40" fill="#36c"/>'
)
FACE = (
    '<circle cx="50" cy="50" r="40" fill="#fd0" stroke="black" stroke-width="2"/><circle cx="37" cy="40" r="5"/>'
    '<circle cx="63" cy="40" r="5"/><path d="M32 62Q50 80 68 62" fill="none" stroke="black" stroke-width="3"/>'
)


def svg(inner: str, attributes: str = 'viewBox="0 0 100 100"') -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>{inner}</svg>'


def grade(gold: str, prediction: str) -> RewardResult:
    return score(f"<think>so</think><answer>{prediction}</answer>", gold, "svg-code")


def value(gold: str, prediction: str) -> float:
    result = grade(gold, prediction)
    assert result.status == "ok"
    assert result.value is not None
    return result.value


def halves(left: float, right: float) -> np.ndarray:
    picture = np.full((CANVAS, CANVAS, 3), left, dtype=np.float32)
    picture[:, CANVAS // 2 :] = right
    return picture


def test_explained_variance_by_hand() -> None:
    # Black and white halves: the mean is 1/2 and the variance 1/4. A right half of 1/2 leaves (1/2)^2 on half of the
    # pixels, 1/8: R2 = 1/2, at every scale whose blocks end in the middle. Blocks of 32 are 0, 1/2, 1 in the gold and
    # 0, 1/4, 1/2 in the picture: R2 = 1 - (1/16 + 1/4) / (1/4 + 1/4) = 3/8.
    assert SCALES == (1, 2, 4, 8, 16, 32)
    found = likeness(halves(0, 0.5), halves(0, 1))
    assert found.colour == pytest.approx((5 / 2 + 3 / 8) / 6)
    assert found.shape == pytest.approx(1.0)  # the edge is in its place, whatever its strength
    assert found.value == pytest.approx((found.colour + 1) / 2)
    inverted = likeness(halves(1, 0), halves(0, 1))
    assert (inverted.colour, inverted.shape) == (0.0, 1.0)


@pytest.mark.parametrize("level", [0.0, 0.25, 0.5, 1.0])
def test_one_colour_explains_nothing(level: float) -> None:
    found = likeness(halves(level, level), halves(0.2, 0.9))
    assert (found.colour, found.shape) == (0.0, 0.0)


@pytest.mark.parametrize("gold", [HOUSE, CHART, FACE])
def test_the_same_drawing_a_blank_one_and_others(gold: str) -> None:
    assert value(svg(gold), svg(gold)) == 1.0
    for colour in ("white", "#e0c8b0", "black", "#36c"):
        assert value(svg(gold), svg(f'<rect width="100" height="100" fill="{colour}"/>')) == 0.0
    for other in {HOUSE, CHART, FACE} - {gold}:
        assert value(svg(gold), svg(other)) < 0.1


def test_nearer_drawings_score_higher() -> None:
    gold = svg(HOUSE)
    near, far = svg(HOUSE, 'viewBox="2 2 100 100"'), svg(HOUSE, 'viewBox="5 5 100 100"')
    assert 1.0 > value(gold, near) > value(gold, far) > 0.1
    recoloured = grade(gold, svg(HOUSE.replace("#c96", "#69c"))).components
    assert recoloured["shape"] == 1.0
    assert recoloured["colour"] < 1.0


@pytest.mark.parametrize(
    "same",
    [
        svg(HOUSE + '<text x="5" y="50" font-size="40">a house</text>'),
        svg("<!-- a house -->" + HOUSE + "<title>a house</title><desc>walls</desc><metadata><b/></metadata>"),
        svg(HOUSE, 'width="400" height="400" viewBox="0 0 100 100"'),
        f'<?xml version="1.0"?><!DOCTYPE svg><svg viewBox="0 0 100 100">{HOUSE}</svg>',  # no name space
        svg('<defs><g id="h">' + HOUSE + '</g></defs><use xlink:href="#h"/>'),  # no declaration of xlink
        svg(HOUSE + '<image href="https://localhost/x.png" width="99" height="99"/>'),
        svg(
            HOUSE
            + '<foreignObject width="99" height="99"><p xmlns="http://www.w3.org/1999/xhtml">a</p></foreignObject>'
        ),
        svg("<style>@import url(https://localhost/a.css);</style>" + HOUSE),
        svg(HOUSE + '<script>alert(1)</script><use href="https://localhost/a.svg#b"/>'),
        f"Here it is:\n```xml\n{svg(HOUSE)}\n```",
    ],
)
def test_what_is_left_out_or_written_otherwise(same: str) -> None:
    assert value(svg(HOUSE), same) == 1.0


def test_a_view_box_is_taken_from_the_size() -> None:
    sized = svg('<rect x="10" width="30" height="40"/>', 'width="80px" height="80"')
    assert value(sized, svg('<rect x="10" width="30" height="40"/>', 'viewBox="0 0 80 80"')) == 1.0


def test_filters_go_and_patterns_are_grey() -> None:
    box = '<rect x="20" y="20" width="50" height="50" fill="{}" {}/>'
    blurred = '<filter id="f"><feGaussianBlur stdDeviation="9"/></filter>' + box.format("red", 'filter="url(#f)"')
    assert value(svg(box.format("red", "")), svg(blurred)) == 1.0
    styled = "<style>rect { filter: url(#f) }</style>" + box.format("red", 'style="filter:blur(2px)"')
    assert value(svg(box.format("red", "")), svg(styled)) == 1.0
    tile = '<pattern id="p" width="1e6" height="1e6" patternUnits="userSpaceOnUse"><circle r="1"/></pattern>'
    assert value(svg(box.format("#808080", "")), svg(tile + box.format("url(#p)", ""))) == 1.0


def test_a_drawing_that_is_white_on_white_is_seen_on_black() -> None:
    moon = svg('<circle cx="50" cy="50" r="30" fill="white"/>')
    assert value(moon, moon) == 1.0
    assert value(moon, svg("")) == 0.0


@pytest.mark.parametrize(
    "gold",
    ["", "a house", svg(""), svg("<text y='50'>house</text>"), f"<svg>{HOUSE}", "<svg>" + "x" * MAX_CHARS + "</svg>"],
)
def test_a_gold_that_shows_nothing_is_no_score(gold: str) -> None:
    assert grade(gold, svg(HOUSE)).status == "invalid_gold"


def copies(times: int) -> str:
    levels = (f'<g id="a{i}">' + f'<use href="#a{i - 1}"/>' * times + "</g>" for i in range(1, 12))
    return '<g id="a0"><rect width="9" height="9"/></g>' + "".join(levels)


def masks_of_masks(levels: int) -> str:
    inner = (f'<mask id="m{i}">' + BOX.format(f'mask="url(#m{i - 1})"') * 4 + "</mask>" for i in range(1, levels))
    return (
        '<mask id="m0"><rect width="9" height="9"/></mask>' + "".join(inner) + BOX.format(f'mask="url(#m{levels - 1})"')
    )


BOX = '<rect width="100" height="100" {}/>'
MASK = '<mask id="m"><rect width="99" height="99" fill="white"/></mask>'
REFUSED = {
    "laughs": copies(4),
    "itself": '<g id="a"><use href="#a"/></g>',
    "each other": '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>',
    "masks in a circle": '<mask id="a" mask="url(#b)"/><mask id="b" mask="url(#a)"/>' + BOX.format('mask="url(#a)"'),
    "masks": MASK + BOX.format('mask="url(#m)"') * 100,
    "masks by style": MASK + BOX.format('style="mask: url(#m)"') * 100,
    "masks of masks": masks_of_masks(4),
    "layers": BOX.format('opacity="0.5"') * 1_000,
    "shapes": BOX.format("") * 4_000,
    "markers": '<marker id="k"><rect width="9" height="9"/></marker><path marker-mid="url(#k)" d="M0 0'
    + " L1 1 L99 3" * 200
    + '"/>',
    "depth": "<g>" * 150 + BOX.format("") + "</g>" * 150,
    "deep copies": "".join(f'<g id="a{i}"><g><use href="#a{i - 1}"/></g></g>' for i in range(60))
    + '<use href="#a59"/>',
    "hairlines": '<path stroke="red" fill="none" d="M0 0' + "V100V0" * 5_000 + '"/>',
    "huge circle": '<circle r="1e38" stroke="red"/>',
    "huge line": '<path d="M0 0L9 9" stroke="red" stroke-width="1e30"/>',
    "huge line by style": '<path d="M0 0L9 9" style="stroke: red; stroke-width: 1e30px"/>',
    "huge line by sheet": "<style>path { stroke: red; stroke-width: 1e30 }</style>" + '<path d="M0 0L9 9"/>',
    "huge scale": '<g transform="scale(1e4)"><g transform="scale(1e4)"><circle r="20" stroke="red"/></g></g>',
    "huge skew": '<circle r="20" stroke="red" transform="skewX(89.9999999)"/>',
    "huge steps": '<path d="M0 0' + "l9e5 9e5" * 9 + '" stroke="red"/>',
    "attributes": "<g " + " ".join(f'a{i}="1"' for i in range(10_000)) + "/>",
    "entities": '<!DOCTYPE svg [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]>' + BOX.format('id="&b;"'),
    "elements": "<g/>" * 6_000,
    "comments": "<!--" * 20_000,
    "starts": "<svg " * 20_000,
    "closing": "</svg>" * 20_000,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", REFUSED)
def test_drawings_that_would_harm_the_renderer_are_refused(name: str) -> None:
    assert clean(svg(REFUSED[name])) is None
    assert value(svg(HOUSE), svg(REFUSED[name])) == 0.0


TAMED = {
    "dashes": '<path d="M0 0H100" stroke="red" stroke-dasharray="1e-5"/>',
    "dashes by sheet": "<style>path { stroke-dasharray: 1e-5 }</style>" + '<path d="M0 0H100" stroke="red"/>' * 50,
    "pattern": '<pattern id="p" width="1e9" height="1e9"/>' + BOX.format('fill="url(#p)"'),
    "blur": '<filter id="f"><feGaussianBlur stdDeviation="1e9"/></filter>' + BOX.format('filter="url(#f)"') * 50,
    "masks by sheet": MASK + "<style>rect { mask: url(#m) }</style>" + BOX.format("") * 500,
    "file": '<image href="/etc/hostname" width="9" height="9"/>',
    "empty box": '<svg viewBox="0 0 0 0"><rect width="5" height="5"/></svg>',
    "no numbers": '<path d="M NaN 0 L x 5"/><circle r="-"/>',
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", TAMED)
def test_drawings_that_are_rendered_without_what_would_harm(name: str) -> None:
    cleaned = clean(svg(TAMED[name]))
    assert cleaned is not None
    assert render(cleaned) is not None


def test_a_view_box_of_no_size_does_not_hide_huge_shapes() -> None:
    for box in ("0 0 0 1e9", "65 79 nan 4294967296", "0 0 -5 5", "0 0 1e-9 1e9"):
        assert clean(svg('<circle r="1e38" stroke="red"/>', f'viewBox="{box}"')) is None


def test_blank_pictures() -> None:
    assert is_blank(halves(0.5, 0.5))
    assert not is_blank(halves(0.5, 0.6))
