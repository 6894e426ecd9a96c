"""Reactions in SMILES, `A.B>C>D` or `A.B>>D`: the same molecules in the same roles, free in order within a role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.molecules import Reaction, canonical, read_reaction
from rewards.molecules import warm_up as warm_up

AGENT_RULES = ("compare", "ignore", "merge")

_ESTER = "CC(=O)O.CCO>OS(O)(=O)=O>CCOC(C)=O"

EXAMPLES = (
    Example(
        _ESTER,
        right=(
            f"<answer>{_ESTER}</answer>",
            "<answer>OCC.OC(C)=O>S(=O)(=O)(O)O>O(CC)C(=O)C</answer>",
            "<answer>C[C:1](=O)O.CC[OH:2]>OS(O)(=O)=O>CC[O:2][C:1](C)=O</answer>",
        ),
        wrong=(
            "<answer>CC(=O)O.CCO>>CCOC(C)=O</answer>",
            "<answer>CC(=O)O.CCO.OS(O)(=O)=O>>CCOC(C)=O</answer>",
            "<answer>CCOC(C)=O>OS(O)(=O)=O>CC(=O)O.CCO</answer>",
            "<answer>CC(=O)O>OS(O)(=O)=O>CCOC(C)=O</answer>",
            "<answer>CC(=O)O.CCO.CCO>OS(O)(=O)=O>CCOC(C)=O</answer>",
            "<answer>CCOC(C)=O</answer>",
            "<answer>>></answer>",
            "<answer>" + "C>" * 5_000 + "</answer>",
        ),
    ),
    Example(
        "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1",
        right=("<answer>OB(O)C1=CC=CC=C1.C1=CC=C(Br)C=C1>>c1ccc(cc1)c1ccccc1</answer>",),
        wrong=("<answer>OB(O)c1ccccc1.Brc1ccccc1>[Pd]>c1ccc(-c2ccccc2)cc1</answer>",),
    ),
    Example(
        _ESTER,
        right=("<answer>CC(=O)O.CCO.OS(O)(=O)=O>>CCOC(C)=O</answer>",),
        wrong=("<answer>CC(=O)O.CCO>>CCOC(C)=O</answer>",),
        sample={"agents": "merge"},
    ),
    Example(
        _ESTER,
        right=("<answer>CC(=O)O.CCO>>CCOC(C)=O</answer>", "<answer>CC(=O)O.CCO>Cl>CCOC(C)=O</answer>"),
        wrong=("<answer>CC(=O)O.CCO.Cl>>CCOC(C)=O</answer>",),
        sample={"agents": "ignore"},
    ),
)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 where every role holds the same molecules, else 0.0; atom maps are dropped, stoichiometry counts.

    `agents` in the row says what becomes of what stands between the arrows: `compare` (the default) as a role of its
    own, `merge` with the reactants, because sources disagree on which of them is an agent, or `ignore`. Components:
    `reactants`, `agents` and `products`, each 1 where that role agrees.
    """
    rule = sample.get("agents", "compare")
    if rule not in AGENT_RULES:
        return failed("error", f"the row's agents is {rule!r}; use one of {', '.join(AGENT_RULES)}")
    gold = _canonical_roles(read_reaction(answer), rule)
    if gold is None:
        return failed("invalid_gold", f"the accepted answer {shorten(answer)!r} is not a reaction A.B>C>D of molecules")
    got = _canonical_roles(read_reaction(prediction), rule)
    if got is None:
        parts = {role: 0.0 for role in gold}
        return graded(0.0, f"{shorten(prediction)!r} is not a reaction A.B>C>D of molecules", **parts)
    parts = {role: float(form == gold[role]) for role, form in got.items()}
    return graded(float(got == gold), f"{shorten(prediction)!r} against {shorten(answer)!r}", **parts)


def _canonical_roles(reaction: Reaction | None, rule: str) -> dict[str, str] | None:
    """Role -> canonical form of its molecules, "" for none; None where a role has text that is no molecule."""
    if reaction is None:
        return None
    roles = reaction._asdict()
    if rule != "compare":
        agents = roles.pop("agents")
        if canonical(agents or "C") is None:
            return None
        if rule == "merge" and agents:
            roles["reactants"] += "." + agents
    forms = {role: canonical(smiles) if smiles else "" for role, smiles in roles.items()}
    return None if None in forms.values() else {role: form or "" for role, form in forms.items()}


verify = on_final_answer(grade)
