"""SVG: how much the rendered drawing looks like the gold one; text and comments are left out before."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.pictures import is_blank, likeness, render
from rewards.svg import clean

_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">
<rect x="10" y="50" width="40" height="40" fill="#c03030"/><circle cx="70" cy="30" r="20" fill="blue"/></svg>"""
_REWRITTEN = """<?xml version="1.0" encoding="UTF-8"?><!-- the same -->
<svg width="200" height="200" viewBox="0 0 100 100"><title>icon</title><defs><g id="a"><circle r="20"/></g></defs>
<style>.b { fill: #c03030 }</style><path class="b" d="M10 50h40v40h-40z"/>
<use href="#a" transform="translate(70 30)" fill="#00f"/><text x="5" y="20" font-size="30">square</text></svg>"""
_BOMB = (
    '<svg viewBox="0 0 9 9"><g id="a0"><rect width="9" height="9"/></g>'
    + "".join(f'<g id="a{i}">' + f'<use href="#a{i - 1}"/>' * 10 + "</g>" for i in range(1, 10))
    + "</svg>"
)

EXAMPLES = (
    Example(
        _ICON,
        right=(
            f"<answer>{_ICON}</answer>",
            f"<answer>```svg\n{_ICON}\n```</answer>",
            f"<answer>{_REWRITTEN}</answer>",
        ),
        wrong=(
            "<answer><svg viewBox='0 0 100 100'></svg></answer>",
            "<answer><svg viewBox='0 0 100 100'><rect width='100' height='100' fill='#c03030'/></svg></answer>",
            "<answer><svg viewBox='0 0 100 100'><text y='50'>red square, blue circle</text></svg></answer>",
            f"<answer><!-- {_ICON} --></answer>",
            f"<answer>{_ICON.replace('</svg>', '')}</answer>",
            "<answer>a red square and a blue circle</answer>",
            "<answer><svg viewBox='0 0 9 9'><image href='file:///etc/hostname' width='9' height='9'/></svg></answer>",
            f"<answer>{_BOMB}</answer>",
            "<answer><svg>" + "<g>" * 20_000 + "</svg></answer>",
            f"<think>{_ICON}</think>",
        ),
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """The mean of the likeness in colour and in shape, see `rewards.pictures.likeness`; 1.0 for the same pixels.

    Both drawings are fitted into a square of `rewards.svg.CANVAS` pixels on white, or on black where the gold one can't
    be seen on white. A drawing that is not well-formed or that would cost too much to render scores 0; see
    `rewards.svg` for what is left out of both before.
    """
    backdrop, gold = _gold_picture(answer)
    if gold is None:
        return failed(
            "invalid_gold", f"the accepted answer {shorten(answer)!r} is no SVG, shows nothing or is too large"
        )
    drawing = clean(prediction)
    picture = render(drawing, backdrop=backdrop) if drawing is not None else None
    if picture is None:
        return graded(0.0, f"{shorten(prediction)!r} is no well-formed SVG, or too costly", colour=0.0, shape=0.0)
    found = likeness(picture, gold)
    parts = {"colour": found.colour, "shape": found.shape}
    return graded(found.value, f"colour {found.colour:.3f}, shape {found.shape:.3f}", **parts)


@functools.lru_cache(maxsize=32)  # a group of completions comes with one gold drawing
def _gold_picture(answer: str) -> tuple[str, Any]:
    """A backdrop against which a drawing shows something, and its picture; None for a drawing of nothing."""
    drawing = clean(answer)
    for backdrop in ("white", "black"):
        picture = render(drawing, backdrop=backdrop) if drawing is not None else None
        if picture is not None and not is_blank(picture):
            return backdrop, picture
    return "white", None


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load lxml, the renderer, Pillow and NumPy."""
    grade(_ICON, _ICON, {})
