"""Counting: discs on a 4 x 4 grid of roomy cells; count all of them, or those of one color among others."""

from __future__ import annotations

import random

from rl.data.synth.canvas import GROUNDS, Shape, draw_shapes, scene_key
from rl.data.synth.draft import Draft, answered

COLORS = ("red", "green", "blue")
CELL = 250
RADIUS = 80
JITTER = 35
"""RADIUS + JITTER stays under half a cell, so discs never touch and none straddles two cells."""


def make(rng: random.Random, image_size: int) -> Draft:
    """`How many discs are there?` (1 to 6) or `How many red discs are there?` (0 to 6, with distractors)."""
    color = rng.choice(COLORS)
    by_color = rng.random() < 0.5
    if by_color:
        count = 0 if rng.random() < 0.1 else rng.randint(1, 6)
        other = rng.choice([name for name in COLORS if name != color])
        colors = [color] * count + [other] * rng.randint(1, 5)
        problem = f"<image>How many {color} discs are there?"
    else:
        count = rng.randint(1, 6)
        colors = [color] * count
        problem = "<image>How many discs are there?"
    shapes = scatter_discs(rng, colors)
    ground = rng.choice(GROUNDS)
    return Draft(
        problem=problem,
        answers=(str(count),),
        key=scene_key(shapes),
        draw=lambda: draw_shapes(shapes, image_size, ground),
        problem_type="counting",
        answer_type="number",
        prompt_type="normal",
        solution=answered(str(count)),
    )


def scatter_discs(rng: random.Random, colors: list[str]) -> tuple[Shape, ...]:
    """One disc per color given, each in its own cell, shifted a little off the cell's middle."""
    cells = rng.sample(range(16), len(colors))
    discs = []
    for cell, color in zip(cells, colors, strict=True):
        cx = (cell % 4) * CELL + CELL // 2 + rng.randint(-JITTER, JITTER)
        cy = (cell // 4) * CELL + CELL // 2 + rng.randint(-JITTER, JITTER)
        discs.append(Shape("disc", color, cx - RADIUS, cy - RADIUS, 2 * RADIUS))
    return tuple(discs)
