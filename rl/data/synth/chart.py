"""Charts: bars of different colors, 1 to 7 units high; read a value, or find the highest or lowest bar."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from rl.data.synth.canvas import COLORS, encode_png
from rl.data.synth.draft import Draft, answered

TOP = 7
"""Highest value."""

UNITS = TOP + 1
"""Units that the picture is high: one stays free above the highest bar."""

SLOTS = 4
"""Places for bars; a chart of fewer bars leaves some empty."""


@dataclass(frozen=True, slots=True)
class Bars:
    """The bars from left to right."""

    colors: tuple[str, ...]
    heights: tuple[int, ...]
    slots: tuple[int, ...]
    width: float
    """Share of a bar's slot that the bar fills."""

    @property
    def key(self) -> str:
        return "bars|" + ",".join(f"{c}{h}" for c, h in zip(self.colors, self.heights, strict=True))


def make(rng: random.Random, image_size: int) -> Draft:
    """`What is the value of the red bar?` (number), or `Which bar is the highest?` (the color's name)."""
    bars = make_bars(rng)
    kind = rng.choice(("value", "value", "highest", "lowest"))
    if kind == "value":
        which = rng.randrange(len(bars.colors))
        problem = f"<image>What is the value of the {bars.colors[which]} bar?"
        answer, answer_type = str(bars.heights[which]), "number"
    else:
        extreme = max(bars.heights) if kind == "highest" else min(bars.heights)
        problem = f"<image>Which bar is the {kind}?"
        answer, answer_type = bars.colors[bars.heights.index(extreme)], "string"
    return Draft(
        problem=problem,
        answers=(answer,),
        key=bars.key,
        draw=lambda: draw_bars(bars, image_size),
        problem_type="ocr",
        answer_type=answer_type,
        prompt_type="normal",
        solution=answered(answer),
    )


def make_bars(rng: random.Random) -> Bars:
    """Three or four bars; the heights all differ, so that the highest and the lowest are one bar each."""
    count = rng.choice((3, 4))
    colors = tuple(rng.sample(sorted(COLORS), count))
    heights = tuple(rng.sample(range(1, TOP + 1), count))
    return Bars(colors, heights, tuple(sorted(rng.sample(range(SLOTS), count))), rng.choice((0.6, 0.7, 0.8)))


def draw_bars(bars: Bars, size: int) -> bytes:
    """PNG of the chart: a line across for every second unit, then the bars, which stand on the lower border."""
    image = Image.new("RGB", (size, size), (255, 255, 255))
    pen = ImageDraw.Draw(image)
    for value in range(2, UNITS, 2):
        y = size - round(value * size / UNITS)
        pen.line((0, y, size, y), fill=(200, 200, 200))
    slot = size / SLOTS
    for place, color, height in zip(bars.slots, bars.colors, bars.heights, strict=True):
        x1 = round((place + (1 - bars.width) / 2) * slot)
        x2 = round((place + (1 + bars.width) / 2) * slot)
        pen.rectangle((x1, size - round(height * size / UNITS), x2 - 1, size - 1), fill=COLORS[color])
    return encode_png(image)
