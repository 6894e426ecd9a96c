"""Grounding: the box of a named shape among two to four, in thousandths of the picture."""

from __future__ import annotations

import random

from rl.data.synth.canvas import GROUNDS, draw_shapes, place_shapes, scene_key
from rl.data.synth.draft import Draft, answered


def make(rng: random.Random, image_size: int) -> Draft:
    """`Give the box of the red square.` with the answer `[x1,y1,x2,y2]`, (0, 0) top left and 1000 the full side."""
    shapes = place_shapes(rng, rng.choice((2, 3, 4)))
    target = rng.choice(shapes)
    box = "[" + ",".join(str(value) for value in target.box) + "]"
    ground = rng.choice(GROUNDS)
    return Draft(
        problem=f"<image>Give the box of the {target.name}.",
        answers=(box,),
        key=scene_key(shapes),
        draw=lambda: draw_shapes(shapes, image_size, ground),
        problem_type="grounding",
        answer_type="bbox",
        prompt_type="think",
        solution=answered(box, thought=target.placed),
    )
