"""E-SMILES: the same structure, whatever the order of atoms and records; see `rewards.esmiles`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import esmiles
from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same structure, else 0.0; partial credit where the row says `partial_credit: true`."""
    value = esmiles.score(prediction, answer, partial=sample.get("partial_credit") is True)
    if value is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not valid E-SMILES")
    return graded(value, f"{shorten(prediction)!r} against {shorten(answer)!r}", exact=float(value == 1.0))


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load RDKit."""
    esmiles.key("*c1ccccc1<sep><a>0:R[1]</a>")
