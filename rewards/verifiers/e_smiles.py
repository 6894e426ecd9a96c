"""E-SMILES: the same structure, whatever the order of atoms and records; see `rewards.esmiles`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import esmiles
from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer

_AROMATIC = "*C(O)c1cc(C(=O)N(*)*)cc(-c2*ccc*2)c1<sep><a>0:CF3</a><a>9:R[3]</a><a>10:R[2]</a><a>14:X</a><a>18:Y</a>"

EXAMPLES = (
    Example(
        "*c1ccccc1<sep><a>0:R[1]</a>",
        right=(
            "<answer>*c1ccccc1<sep><a>0:R[1]</a></answer>",
            "<answer>C1=CC=CC=C1*<sep><a>6:R1</a></answer>",
            "<answer><E-SMILES>c1ccc(*)cc1<sep><a>4:R[1]</a></E-SMILES></answer>",
            "<answer>```\nc1cc(*)ccc1<sep><a>3:R[1]</a>\n```</answer>",
        ),
        wrong=(
            "<answer>*c1ccccc1<sep><a>0:R[2]</a></answer>",
            "<answer>*c1ccccc1<sep><a>1:R[1]</a></answer>",
            "<answer>*c1ccccc1<sep><a>0:R[1]?n</a></answer>",
            "<answer>*c1ccccc1<sep><a>0:R[1]</a><a>99:R[1]</a></answer>",
            "<answer>*c1ccccc1<sep><r>0:R[1]</r></answer>",
            "<answer>c1ccccc1</answer>",
            "<answer>clccecc1<sep><r>0:R[1]</r></answer>",
            "<answer>" + "*(" * 1_000 + "</answer>",
            "<answer>*c1ccccc1<sep>" + "<a>0:R[1]</a>" * 300 + "</answer>",
        ),
    ),
    Example(
        "*c1ccccc1<sep><a>0:CF3</a>",
        right=("<answer>FC(F)(F)c1ccccc1</answer>", "<answer>*c1ccccc1<sep><a>0:F3C</a></answer>"),
        wrong=("<answer>Cc1ccccc1</answer>", "<answer>*c1ccccc1<sep><a>0:CHF2</a></answer>"),
    ),
    Example(
        _AROMATIC + "<r>1:R[1]?1-3</r>",
        right=("<answer>" + _AROMATIC + "<r>1:R1?1-3</r></answer>",),
        wrong=("<answer>" + _AROMATIC + "<r>0:R[1]?1-3</r></answer>", "<answer>" + _AROMATIC + "</answer>"),
    ),
)


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
