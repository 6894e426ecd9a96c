"""SMILES: the same molecule, by canonical form; stereochemistry, charges and isotopes count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import esmiles
from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.text import bare


def canonical(text: str) -> str | None:
    """The canonical form of a plain SMILES string, or None; the size caps are those of E-SMILES."""
    plain = text.strip()
    if "<" in plain:
        return None
    # As it is first: `bare` takes bold marks off, and a SMILES string may begin and end with dummy atoms.
    return esmiles.key(plain) or (esmiles.key(bare(plain)) if len(plain) <= esmiles.MAX_CHARS else None)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same molecule, else 0.0."""
    gold = canonical(answer)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not a valid SMILES string")
    got = canonical(prediction)
    return graded(float(got == gold), f"{shorten(prediction)!r} against {shorten(answer)!r}")


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load RDKit."""
    esmiles.key("C")
