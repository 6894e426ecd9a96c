"""SMILES and reactions: which spellings are the same molecule, what the roles of a reaction compare, partial credit."""

from __future__ import annotations

import pytest

from rewards import score
from rewards.base import RewardResult
from rewards.molecules import Reaction, read_reaction


def grade(gold: str, prediction: str, answer_type: str = "smiles", **sample: object) -> RewardResult:
    return score(f"<think>so</think><answer>{prediction}</answer>", gold, answer_type, sample=sample)


@pytest.mark.parametrize(
    ("gold", "prediction", "value"),
    [
        ("c1ccccc1", "C1=CC=CC=C1", 1.0),
        ("c1ccccc1", "C1C=CC=CC1", 0.0),
        ("C[N+](=O)[O-]", "CN(=O)=O", 1.0),
        ("[NH4+].[Cl-]", "[Cl-].[NH4+]", 1.0),
        ("[NH4+].[Cl-]", "N.Cl", 0.0),
        ("CCO.CCO", "CCO", 0.0),
        ("C", "[CH4]", 1.0),
        ("C", "[H]C([H])([H])[H]", 1.0),
        ("C", "[13CH4]", 0.0),
        ("Oc1ccccn1", "O=c1cccc[nH]1", 0.0),  # tautomers
        ("[CH3:1][OH:2]", "CO", 1.0),
        ("C[C@@](F)(Cl)Br", "Br[C@](C)(F)Cl", 1.0),  # read from Br: C, F, Cl is the other way round than from C
        ("C[C@@](F)(Cl)Br", "Br[C@@](C)(F)Cl", 0.0),
        ("*C*", "**C", 0.0),
        ("*C*", r"\boxed{*C*}", 1.0),
        ("CCO", "$CCO$", 1.0),
        ("CCO", "CCO>>CC=O", 0.0),
        ("CCO", "CCO<sep>", 0.0),  # E-SMILES is a type of its own
    ],
)
def test_the_same_molecule(gold: str, prediction: str, value: float) -> None:
    assert (grade(gold, prediction).value, grade(gold, prediction).status) == (value, "ok")


@pytest.mark.parametrize("gold", ["", "hello", "C(C", "CC(C)(C)(C)C", "C" * 5_000, "CCO<sep>"])
def test_a_broken_gold_is_no_score(gold: str) -> None:
    assert grade(gold, "CCO").status == "invalid_gold"


def test_partial_credit() -> None:
    gold = "C[C@H](N)C(=O)O"
    assert grade(gold, "C[C@@H](N)C(=O)O").value == 0.0
    assert grade(gold, "C[C@@H](N)C(=O)O", partial_credit=True).value == pytest.approx(0.9 * 0.85)
    assert grade(gold, gold, partial_credit=True).components["exact"] == 1.0
    assert grade(gold, "[Na+].[Cl-]", partial_credit=True).value == 0.0
    assert grade(gold, "C" * 9_000, partial_credit=True).value == 0.0


def test_reactions_are_taken_apart_at_arrows_that_are_no_bonds() -> None:
    assert read_reaction("A.B>C>D") == Reaction("A.B", "C", "D")
    assert read_reaction("$A.B>>D$") == Reaction("A.B", "", "D")
    assert read_reaction("N.Cl[Pt]Cl>>N->[Pt](Cl)Cl") == Reaction("N.Cl[Pt]Cl", "", "N->[Pt](Cl)Cl")
    for text in ("", ">>", "A>>", ">>D", "A>D", "A>B>C>D", "A" * 20_000):
        assert read_reaction(text) is None, text


ESTER = "CC(=O)O.CCO>OS(O)(=O)=O>CCOC(C)=O.O"


@pytest.mark.parametrize(
    ("rule", "prediction", "value"),
    [
        ("compare", "CCO.CC(O)=O>O=S(=O)(O)O>O.CCOC(C)=O", 1.0),
        ("compare", "CCO.CC(O)=O>>O.CCOC(C)=O", 0.0),
        ("merge", "CCO.CC(O)=O.O=S(=O)(O)O>>O.CCOC(C)=O", 1.0),
        ("merge", "CCO>O=S(=O)(O)O.CC(O)=O>O.CCOC(C)=O", 1.0),
        ("merge", "CCO.CC(O)=O>>O.CCOC(C)=O", 0.0),
        ("merge", "CCO.CC(O)=O>nonsense>O.CCOC(C)=O", 0.0),
        ("ignore", "CCO.CC(O)=O>>O.CCOC(C)=O", 1.0),
        ("ignore", "CCO.CC(O)=O>Cl>O.CCOC(C)=O", 1.0),
        ("ignore", "CCO.CC(O)=O>nonsense>O.CCOC(C)=O", 0.0),
        ("ignore", "CCO.CC(O)=O>>CCOC(C)=O", 0.0),
    ],
)
def test_what_becomes_of_agents(rule: str, prediction: str, value: float) -> None:
    assert grade(ESTER, prediction, "reaction", agents=rule).value == value


def test_each_role_is_a_component() -> None:
    parts = grade(ESTER, "CCO.CC(O)=O>Cl>O.CCOC(C)=O", "reaction").components
    assert {name: parts[name] for name in Reaction._fields} == {"reactants": 1.0, "agents": 0.0, "products": 1.0}
    assert grade(ESTER, "no reaction", "reaction").components["products"] == 0.0


def test_reactions_that_can_not_be_scored() -> None:
    assert grade("CCO", "CCO>>CC=O", "reaction").status == "invalid_gold"
    assert grade("nonsense>>CC", "CCO>>CC=O", "reaction").status == "invalid_gold"
    result = grade(ESTER, ESTER, "reaction", agents="drop")
    assert result.status == "error"
    assert "use one of compare, ignore, merge" in result.detail
