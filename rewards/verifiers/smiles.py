"""SMILES: the same molecule, by canonical form.

Stereochemistry, charges, isotopes and every component of a mixture count. Kekulé and aromatic spelling, explicit
hydrogens, the order of atoms and components, atom maps and the two spellings of a nitro group do not. Tautomers and
protonation states are different molecules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards import esmiles
from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.molecules import plain_smiles
from rewards.molecules import warm_up as warm_up

EXAMPLES = (
    Example(
        "CC(=O)Oc1ccccc1C(=O)O",
        right=(
            "<answer>CC(=O)Oc1ccccc1C(=O)O</answer>",
            "<answer>OC(=O)C1=CC=CC=C1OC(C)=O</answer>",
            r"\boxed{O=C(O)c1ccccc1OC(=O)C}",
            "<answer>`CC(=O)Oc1ccccc1C(O)=O`</answer>",
            "<answer>[CH3:1][C:2](=[O:3])Oc1ccccc1C(=O)O</answer>",
        ),
        wrong=(
            "<answer>O=C(O)c1ccccc1O</answer>",
            "<answer>CC(=O)Oc1ccccc1C(=O)[O-]</answer>",
            "<answer>CC(=O)Oc1ccccc1C(=O)O.O</answer>",
            "<answer>aspirin</answer>",
            "<answer>CC(=O)Oc1ccccc1C(=O</answer>",
            "<think>CC(=O)Oc1ccccc1C(=O)O</think><answer>c1ccccc1</answer>",
        ),
    ),
    Example(
        "C[C@H](N)C(=O)O",
        right=("<answer>N[C@@H](C)C(O)=O</answer>", "<answer>OC(=O)[C@H](C)N</answer>"),
        wrong=("<answer>C[C@@H](N)C(=O)O</answer>", "<answer>CC(N)C(=O)O</answer>"),
    ),
    Example(
        "[Na+].[O-][N+](=O)c1ccccc1.[Cl-]",
        right=("<answer>[Cl-].[Na+].O=N(=O)c1ccccc1</answer>",),
        wrong=("<answer>[Na+].[O-][N+](=O)c1ccccc1</answer>", "<answer>[Na]Cl.[O-][N+](=O)c1ccccc1</answer>"),
    ),
    Example(
        "F/C=C/F",
        right=(r"<answer>F\C=C\F</answer>",),
        wrong=(r"<answer>F/C=C\F</answer>", "<answer>FC=CF</answer>", "<answer>" + "C" * 20_000 + "</answer>"),
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for the same molecule, else 0.0.

    With `partial_credit: true` in the row a different molecule gets up to 0.9, by Morgan fingerprint, as
    `rewards.esmiles.score` defines it.
    """
    gold = plain_smiles(answer)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not a valid SMILES string")
    got = plain_smiles(prediction)
    if got is None:
        return graded(0.0, f"{shorten(prediction)!r} is not a valid SMILES string", exact=0.0)
    value = esmiles.score(got, gold, partial=sample.get("partial_credit") is True)
    assert value is not None, gold
    return graded(value, f"{shorten(prediction)!r} against {shorten(answer)!r}", exact=float(value == 1.0))


verify = on_final_answer(grade)
