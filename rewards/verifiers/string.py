"""Short texts: equal after unifying case, white space, compatibility characters and outer punctuation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten, tagged
from rewards.extract import on_final_answer
from rewards.text import after_lead, bare, folded

MAX_CHARS = 20_000


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for equal normalised texts, else 0.0; `The answer is` may lead."""
    if not answer.strip():
        return failed("invalid_gold", "the accepted answer is empty, so nothing can be compared with it")
    if len(answer) > MAX_CHARS:
        return failed("invalid_gold", f"the accepted answer has {len(answer)} characters, over {MAX_CHARS}")
    if len(prediction) > MAX_CHARS:
        return graded(0.0, f"an answer of {len(prediction)} characters, over {MAX_CHARS}")
    gold, got = folded(bare(answer)), bare(prediction)
    same = bool(gold) and gold in (folded(got), folded(after_lead(got)))
    return graded(float(same), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)


EXAMPLES: tuple[Example, ...] = (
    Example(
        "Mount Fuji",
        right=(
            *tagged("Mount Fuji", "mount  fuji.", "**Mount Fuji**", "The answer is Mount Fuji."),
            r"\boxed{Mount Fuji}",
        ),
        wrong=(*tagged("Fuji", "Mount Fuji or Mount Everest", "Mount Fujii", "not Mount Fuji"), "Mount Fuji"),
    ),
    Example("no", right=tagged("No", "no."), wrong=tagged("I do not know", "none", "yes", "no no", "nope")),
    Example("東京", right=tagged("東京", "東京。"), wrong=tagged("京都", "東京都")),
)
