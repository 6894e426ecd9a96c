"""What a task family hands back: one question with its answer, its worked solution and a picture not yet drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """One drawn-up question.

    Example: the counting family gives
        Draft(problem="<image>How many red discs are there?", answers=("4",), key="discs|red:...", draw=<function>,
              problem_type="counting", answer_type="number", prompt_type="normal", solution="<answer>4</answer>")
    """

    problem: str
    answers: tuple[str, ...]
    key: str
    """Names the scene, the molecule or the operands: two drafts of one key may never stand in different pools."""
    problem_type: str
    answer_type: str
    prompt_type: str
    solution: str
    """The target text for supervised training, tags included."""
    draw: Callable[[], bytes] | None = None
    """Renders the picture as PNG; kept back so that a rejected draft costs no drawing."""
    options: tuple[str, ...] | None = None


Task = Callable[[random.Random, int], Draft]
"""A pure function of the random stream and the side of the picture in pixels."""


def answered(text: str, thought: str | None = None) -> str:
    """The supervised target: `<think>..</think><answer>..</answer>`, the first part only with a thought."""
    think = f"<think>{thought}</think>" if thought is not None else ""
    return f"{think}<answer>{text}</answer>"
