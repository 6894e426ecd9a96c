"""Captions for alignment: the scenes of the other families with what they show, as plain text without tags.

They use the words of the other families (shapes with their cells, bars with their values), so that what the projector
learns from them is what those need. Things are listed in a fixed order of colors: once the color is written, what
follows is a question about one thing, as in the other families.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from rl.data.synth.canvas import COLORS, GROUNDS, draw_shapes, place_shapes, scene_key
from rl.data.synth.chart import draw_bars, make_bars
from rl.data.synth.counting import COLORS as DISC_COLORS
from rl.data.synth.counting import scatter_discs
from rl.data.synth.draft import Draft

PROBLEM = "<image>Describe the image."


def make(rng: random.Random, image_size: int) -> Draft:
    """One to four placed shapes (half of the rows), discs by number, or a bar chart by value."""
    kind = rng.choice(("shapes", "shapes", "discs", "bars"))
    if kind == "bars":
        bars = make_bars(rng)
        heights = dict(zip(bars.colors, bars.heights, strict=True))
        text = "bars: " + ", ".join(f"{c} {heights[c]}" for c in COLORS if c in heights)
        return _draft(text, bars.key, lambda: draw_bars(bars, image_size))
    if kind == "discs":
        colors = rng.sample(DISC_COLORS, rng.choice((1, 2)))
        drawn = [color for color in colors for _ in range(rng.randint(1, 6))]
        shapes = scatter_discs(rng, drawn)
        counts = Counter(drawn)
        text = "discs: " + ", ".join(f"{c} {counts[c]}" for c in DISC_COLORS if c in counts)
    else:
        shapes = place_shapes(rng, rng.choice((1, 2, 2, 3, 3, 4)))
        by_color = {shape.color: shape.placed for shape in shapes}
        text = ", ".join(by_color[c] for c in COLORS if c in by_color)
    ground = rng.choice(GROUNDS)
    return _draft(text, scene_key(shapes), lambda: draw_shapes(shapes, image_size, ground))


def _draft(text: str, key: str, draw: Callable[[], bytes]) -> Draft:
    return Draft(
        problem=PROBLEM,
        answers=(text,),
        key=key,
        draw=draw,
        problem_type="general",
        answer_type="string",
        prompt_type="normal",
        solution=text,
    )
