"""Spatial relations: where one shape lies relative to another, multiple choice, with coordinates in the reasoning."""

from __future__ import annotations

import random

from rl.data.synth.canvas import GROUNDS, Shape, draw_shapes, place_shapes, scene_key
from rl.data.synth.draft import Draft, answered

LETTERS = "ABCD"
RELATIONS = ("left", "above", "right", "below")
"""The options, always in this order: a shuffled one is learned late and all at once, and until then the answers are
guesses, whose groups are noise to RL."""


def make(rng: random.Random, image_size: int) -> Draft:
    """`Where is the red disc relative to the blue square? A. left B. above C. right D. below`."""
    shapes = _scene(rng, count=rng.choice((2, 3)))
    first, second = shapes[:2]
    relation = relation_of(first, second)
    letter = LETTERS[RELATIONS.index(relation)]
    listed = tuple(f"{mark}. {option}" for mark, option in zip(LETTERS, RELATIONS, strict=True))
    ground = rng.choice(GROUNDS)
    return Draft(
        problem=f"<image>Where is the {first.name} relative to the {second.name}? {' '.join(listed)}",
        answers=(letter,),
        key=scene_key(shapes),
        draw=lambda: draw_shapes(shapes, image_size, ground),
        problem_type="spatial-reasoning",
        answer_type="multiple-choice",
        prompt_type="think",
        solution=answered(letter, thought=f"{first.placed} {second.placed} {relation}"),
        options=listed,
    )


def relation_of(first: Shape, second: Shape) -> str:
    """The relation along the axis on which the two are farther apart."""
    (ax, ay), (bx, by) = first.cell, second.cell
    assert abs(ax - bx) != abs(ay - by), "neither axis is the longer one"
    if abs(ax - bx) > abs(ay - by):
        return "left" if ax < bx else "right"
    return "above" if ay < by else "below"


def _scene(rng: random.Random, count: int) -> tuple[Shape, ...]:
    """Shapes of which the first two have one axis that is clearly the longer one."""
    while True:
        shapes = place_shapes(rng, count)
        (ax, ay), (bx, by) = shapes[0].cell, shapes[1].cell
        if abs(ax - bx) != abs(ay - by):
            return shapes
