"""E-SMILES: keys do not depend on order, differ where structures differ, and scores follow the definition."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import pytest
from rdkit import Chem

from rewards import esmiles, score
from rewards.esmiles.reader import normalise_label, read

FUSED = "*c1cc(C)c(N2C(=O)C3C(C)=CC(C4CC(=O)N(*)C4=O)CC3C2=O)cc1C<sep>|Sg:n|"
TWO_RINGS = (
    "*C(O)c1cc(C(=O)N(*)*)cc(-c2*ccc*2)c1<sep><a>0:CF3</a><a>9:R[3]</a><a>10:R[2]</a><a>14:X</a><a>18:Y</a>"
    "<r>1:R[1]?1-3</r>"
)
CIRCLE = (
    "*C(NC(*)(*)C(*)(*)*)C(=O)N(*)*<sep><a>0:R[1]</a><a>4:R[3]</a><a>5:R[2]</a><a>7:R[5]</a><a>8:R[4]</a><c>9:B</c>"
    "<a>13:R[7]</a><a>14:R[6]</a>"
)
PUBLISHED = [
    "*c1ccccc1<sep><a>0:R[1]</a>",
    "*C(O)=O<sep><a>0:<dum></a>",
    "C1C=CC=CC=1<sep><r>0:R[1]</r><r>0:R[2]</r>",
    "c1ccccc1<sep><r>0:L[1]R[1]</r><r>0:L[2]COR[2]</r><r>0:R[3]</r>",
    "C1C=CC=C(*)C=1<sep><a>5:R[1]?n</a>",
    FUSED,
    TWO_RINGS,
    CIRCLE,
    "Cn1nc2c(c1C(=O)N1CCCN(C(=O)[C@@H]3C[C@H]3[N+](=O)[O-])CC1)CCC2<sep>",
    "<E-SMILES>OC(=O)c1cc(I)cc2c1OC(C(=O)O)C=C2</E-SMILES>",
]
DIFFICULT = [
    "c1*ccc*1",
    "c1ccc2*ccc2c1<sep><r>0:R1</r>",
    "*c1ncnc2*c(*)*c12<sep><a>0:R1</a>",
    "c1cc2cccc3*ccc(c1)c23",
    "O=c1*cc[nH]1",
    "C/C=C/C(*)=C\\*<sep><a>5:X</a>",
    "*[C@](F)(Cl)*<sep><a>0:R1</a><a>4:R2</a>",
    "C[C@H]1CC[C@@H](*)CC1<sep><a>6:R1</a>",
    "[13CH3]C*",
    "c1ccc2ccccc2c1<sep><r>1:R1</r>",
    "C12C3C4C1C5C2C3C45",
]
EXAMPLES = PUBLISHED + DIFFICULT
RECORD = re.compile(r"<([adrc])>(\d+):(.*?)</\1>")


def parse_smiles(smiles: str, *, sanitise: bool = False) -> Chem.Mol:
    parameters: Any = Chem.SmilesParserParams()
    parameters.sanitize = False
    parameters.removeHs = False
    mol = Chem.MolFromSmiles(smiles, parameters)
    if sanitise:
        Chem.SanitizeMol(mol)
    return mol


def rings_of(smiles: str) -> list[frozenset[int]]:
    mol = parse_smiles(smiles, sanitise=True)  # kept by name: its ring information dies with it
    return [frozenset(ring) for ring in mol.GetRingInfo().AtomRings()]


def renumbered(text: str, rng: random.Random) -> str:
    """The same structure with its atoms written in a random order, its records remapped and shuffled."""
    smiles, _, extension = text.replace("<E-SMILES>", "").replace("</E-SMILES>", "").partition("<sep>")
    records = RECORD.findall(extension)
    mol = parse_smiles(smiles)
    mol.UpdatePropertyCache(strict=False)
    for atom in mol.GetAtoms():
        atom.SetIntProp("before", atom.GetIdx())
    for kind, index, _ in records:
        if kind != "r":  # a mark, so that RDKit keeps stereocentres that exist through labels alone
            mol.GetAtomWithIdx(int(index)).SetIsotope(700 + int(index))
    order = list(range(mol.GetNumAtoms()))
    rng.shuffle(order)
    shuffled = Chem.RenumberAtoms(mol, order)
    written = re.sub(r"\[7\d\d", "[", Chem.MolToSmiles(shuffled, canonical=False))
    output = shuffled.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    after = {shuffled.GetAtomWithIdx(place).GetIntProp("before"): new for new, place in enumerate(output)}
    old_rings, new_rings = rings_of(smiles), rings_of(written)
    moved = []
    for kind, index, label in records:
        if kind == "r":
            place = new_rings.index(frozenset(after[atom] for atom in old_rings[int(index)]))
        else:
            place = after[int(index)]
        moved.append(f"<{kind}>{place}:{label}</{kind}>")
    rng.shuffle(moved)
    return written + "<sep>" + "".join(moved) + ("|Sg:n|" if "|Sg:n|" in extension else "")


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_key_does_not_depend_on_the_order_of_atoms_and_records(text: str) -> None:
    rng = random.Random(text)
    expected = esmiles.key(text)
    assert expected is not None
    for _ in range(300):
        other = renumbered(text, rng)
        assert esmiles.key(other) == expected, other


def test_keys_of_different_structures_differ() -> None:
    for one, other in itertools.combinations(EXAMPLES, 2):
        assert esmiles.key(one) != esmiles.key(other), (one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("*C<sep><a>0:R1</a>", "*C<sep><a>0:R[1]</a>"),
        ("*C<sep><a>0:<dum></a>", "C*<sep><d>1:<dum></d>"),
        ("CCO", "OCC<sep>"),
        ("CCO", "```smiles\nOCC\n```"),
        ("CCO", "<answer><E-SMILES>C(O)C<sep></E-SMILES></answer>"),
        ("CC", "[H]C([H])([H])C"),
        ("c1*ccc*1", "C1=*C=CC=*1"),
        ("c1ccc2*ccc2c1", "C1=CC=C2*C=CC2=C1"),
        ("*1C=CC=C1", "c1cc*c1"),
        ("N->[Pt](Cl)Cl", "Cl[Pt](Cl)<-N"),
        ("CC*CC<sep><c>7:A</c>", "C(C)*CC<sep><c>0:A</c>"),  # a circle counter names a ring that is no atom
    ],
)
def test_spellings_of_the_same_structure(one: str, other: str) -> None:
    assert esmiles.key(one) == esmiles.key(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("*C<sep><a>0:R[1]</a>", "*C<sep><a>0:R[2]</a>"),
        ("*C<sep><a>0:R[1]</a>", "*C"),
        ("*C<sep><a>0:R[1]</a>", "*C<sep><a>0:R[1]?n</a>"),
        ("*C<sep><a>0:R[1]</a>", "*C<sep><a>0:R[1]</a><a>0:R[1]</a>"),
        ("*C<sep><a>0:R[1]</a>", "*C<sep><c>0:R[1]</c>"),
        ("*C<sep><a>0:C6</a>", "*C<sep><a>0:C[6]</a>"),  # a formula, not a Markush letter
        ("c1ccc2ncccc2c1<sep><r>0:R[1]</r>", "c1ccc2ncccc2c1<sep><r>1:R[1]</r>"),
        ("*CC*<sep>|Sg:n|", "*CC*"),
        ("*CC*<sep>|Sg:n|", "*CC*<sep>|Sg:m|"),
        ("[1*]C", "*C<sep><a>0:R[1]</a>"),
        ("*[C@](F)(Cl)*<sep><a>0:R1</a><a>4:R2</a>", "*[C@@](F)(Cl)*<sep><a>0:R1</a><a>4:R2</a>"),
        ("CCO", "CCO<sep><a>9:R[1]</a>"),
        ("CCO", "CCO<sep>nonsense"),
        ("CCCCO<sep><g>[1:0]:[2:3]:|Sg:n|</g>", "CCCCO<sep><g>[1:0]:[3:4]:|Sg:n|</g>"),
        ("CCCCO<sep><g>[1:0]:[2:3]:|Sg:n|</g>", "CCCCO<sep><g>[0:1]:[3:2]:|Sg:n|</g>"),
        ("CCCCO<sep><v>0:A:[0:2]</v>", "CCCCO<sep><v>0:A:[0:3]</v>"),
        ("CCCCO<sep><v>0:A:[0:2]</v>", "CCCCO<sep><v>0:A:[0:2]</v><r><v>0:R[1]</r>"),
        ("C*<sep><s>*C<sep><a>0:L[1]</a></s>", "C*<sep><s>*N<sep><a>0:L[1]</a></s>"),
    ],
)
def test_different_structures(one: str, other: str) -> None:
    assert esmiles.key(one) != esmiles.key(other)


def test_version_2_records_do_not_depend_on_order_either() -> None:
    assert esmiles.key("OCCCC<sep><g>[2:1]:[3:4]:|Sg:n|</g>") != esmiles.key("CCCCO<sep><g>[2:1]:[3:4]:|Sg:n|</g>")
    one = "CCCCO<sep><a>4:X</a><g>[1:0]:[2:3]:|Sg:n|</g><v>0:A:[0:3]</v><r><v>0:R1</r>"
    other = "OCCCC<sep><v>7:A:[1:4]</v><g>[2:1]:[3:4]:|Sg:n|</g><r><v>7:R[1]</r><a>0:X</a>"
    assert esmiles.key(one) == esmiles.key(other)
    nested = "N(*)C<sep><s>**<sep><a>0:L[3]</a><a>1:R[3]</a>|Sg:n|</s>"
    assert esmiles.key(nested) == esmiles.key("CN*<sep><s>**<sep>|Sg:n|<a>0:R3</a><a>1:L3</a></s>")
    assert '"bad"' not in str(esmiles.key(nested))
    assert "<id>[DNA]" in str(esmiles.key("C*<sep><a>1:<id>[DNA]</a>"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<sep>",
        "clccecc1<sep><r>0:R[1]</r><r>0:R[2]</r>",
        "not a molecule",
        "C(C",
        "CC(C)(C)(C)C",
        "c1cccc1",
        "C>>O",
        "CCO |$R1$|",
        "C" * 20_000,
        "C" * 401,
        "C(" * 61 + "C" + ")" * 61,
        "C<O>C",
        "C\ud800",
        "Cé",
        "*C<sep>" + "<a>0:R[1]</a>" * 201,
        "*" + "(*)" * 17,  # an atom with 17 neighbours
        "*" + "(*)" * 399,  # more than RDKit's valence counters hold
        "[CH99999999999]",
        "[C" + "+" * 300 + "]",
        "<s>" * 1_000_000,
    ],
)
def test_broken_or_too_large(text: str) -> None:
    assert esmiles.key(text) is None
    assert esmiles.score(text, "CCO") == 0.0
    assert esmiles.score("CCO", text) is None


def test_ring_order_is_that_of_the_published_figures() -> None:
    """Ring k in a record is the k-th of RDKit's rings. RDKit 2026.9 orders them differently: keep `rdkit<2026.9`."""
    assert rings_of(TWO_RINGS.partition("<sep>")[0]) == [
        frozenset({3, 4, 5, 11, 12, 19}),  # the benzene ring
        frozenset({13, 14, 15, 16, 17, 18}),  # the ring with X and Y, which has R[1]
    ]
    assert rings_of(FUSED.partition("<sep>")[0]) == [
        frozenset({1, 2, 3, 5, 26, 27}),
        frozenset({6, 7, 9, 23, 24}),
        frozenset({9, 10, 12, 13, 22, 23}),
        frozenset({14, 15, 16, 18, 20}),
    ]


def test_ring_records_bind_to_the_ring_they_name() -> None:
    _, table, _, _ = json.loads(str(esmiles.key(TWO_RINGS)))
    assert [0, [["a", "X"], ["r", "R[1]?1-3"]]] in table
    assert [0, [["a", "CF3"]]] in table


@pytest.mark.parametrize(
    ("label", "normal"),
    [
        ("R1", "R[1]"),
        ("R12?n", "R[12]?n"),
        ("R[1]?1-3", "R[1]?1-3"),
        ("CF3", "CF3"),
        ("NO2", "NO2"),
        ("N3", "N3"),
        ("L1R1", "L1R1"),
        ("<dum>", "<dum>"),
        ("<id>[DNA]", "<id>[DNA]"),
        ("a<b", None),
        ("", None),
    ],
)
def test_labels(label: str, normal: str | None) -> None:
    assert normalise_label(label) == normal


def test_bad_records_are_counted_not_dropped() -> None:
    records = read("*C<sep><a>x:R[1]</a><a>0:R[1]</a><a>0:R[2]<b>1</b><d>0:R[1]</d>")
    assert records is not None
    assert records.atoms == [(0, "R[1]")]
    assert len(records.bad) == 3


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("FC(F)(F)c1ccccc1", "*c1ccccc1<sep><a>0:CF3</a>"),
        ("*C<sep><a>0:Ph</a>", "Cc1ccccc1"),
        ("O=C(OC(C)(C)C)NC", "*NC<sep><a>0:Boc</a>"),
        ("C[N+](=O)[O-]", "*C<sep><a>0:NO2</a>"),
        ("*C<sep><a>0:OMe</a>", "*C<sep><a>0:MeO</a>"),
        ("*[C@H](F)Cl<sep><a>0:Me</a>", "C[C@H](F)Cl"),
        ("*C*<sep><a>0:Et</a><a>2:R[1]</a>", "CCC*<sep><a>3:R1</a>"),
    ],
)
def test_textbook_abbreviations_equal_their_atoms(prediction: str, gold: str) -> None:
    assert esmiles.score(prediction, gold) == esmiles.score(gold, prediction) == 1.0


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("C*C<sep><a>1:CF3</a>", "CC(F)(F)FC"),  # not of degree 1
        ("*C<sep><a>0:Me?2</a>", "CC"),
        ("*C<sep><a>0:R[1]</a>", "CC"),
        ("*C<sep><c>0:Ph</c>", "Cc1ccccc1"),
        ("C[C@@H](F)Cl", "*[C@H](F)Cl<sep><a>0:Me</a>"),
    ],
)
def test_what_is_not_an_abbreviation(prediction: str, gold: str) -> None:
    assert esmiles.score(prediction, gold) != 1.0


def test_partial_credit_by_hand() -> None:
    gold = "*C[C@H](F)Cl<sep><a>0:R[1]</a>"
    assert esmiles.score("*C[C@H](F)Br<sep><a>0:R[1]</a>", gold) == 0.0  # off by default
    # the same skeleton, no label of one: F1 = 0
    assert esmiles.score("*C[C@H](F)Cl", gold, partial=True) == pytest.approx(0.9 * 1.0 * 0.5)
    # the same graph with the other stereo, labels right: F1 = 1
    mirrored = "*C[C@@H](F)Cl<sep><a>0:R[1]</a>"
    assert esmiles.score(mirrored, gold, partial=True) == pytest.approx(0.9 * 0.85)
    # one of two labels right: precision 1/2, recall 1, F1 = 2/3
    extra = "*C[C@H](F)Cl<sep><a>0:R[1]</a><a>1:R[2]</a>"
    assert esmiles.score(extra, gold, partial=True) == pytest.approx(0.9 * (0.5 + 0.5 * 2 / 3))
    # all right, and one record that points nowhere
    dangling = gold + "<a>99:R[1]</a>"
    assert esmiles.score(dangling, gold, partial=True) == pytest.approx(0.9 * 0.9)
    # nothing in common
    assert esmiles.score("O", gold, partial=True) == 0.0
    assert esmiles.score(gold, gold, partial=True) == 1.0


def test_labels_on_the_wrong_atom_count_by_symmetry_class() -> None:
    gold = "*c1ccc(*)cc1<sep><a>0:R[1]</a><a>5:R[2]</a>"
    assert esmiles.score("*c1ccc(*)cc1<sep><a>5:R[1]</a><a>0:R[2]</a>", gold) == 1.0
    ortho = "*c1cc(*)ccc1F<sep><a>0:R[1]</a><a>4:R[2]</a>"
    swapped = "*c1cc(*)ccc1F<sep><a>4:R[1]</a><a>0:R[2]</a>"
    assert esmiles.score(swapped, ortho, partial=True) == pytest.approx(0.9 * 0.5)


def test_a_gold_with_bad_records_is_no_score() -> None:
    assert esmiles.score("CCO", "CCO<sep><a>9:R[1]</a>") is None


def test_nothing_is_logged_and_rdkit_logs_as_before(capfd: pytest.CaptureFixture[str]) -> None:
    for text in ("CC(C)(C)(C)C", "c1cccc1", "C(C", "*" + "(*)" * 20, "C[C@H](C)C"):
        esmiles.score(text, "*C[C@H](F)Cl<sep><a>0:R[1]</a>", partial=True)
    assert capfd.readouterr() == ("", "")
    Chem.MolFromSmiles("CC(C)(C)(C)C")
    assert "greater than permitted" in capfd.readouterr().err


def test_the_verifiers() -> None:
    def grade(answer_type: str, gold: str, prediction: str) -> tuple[float | None, str]:
        result = score(f"<think>so</think><answer>{prediction}</answer>", gold, answer_type)
        return result.value, result.status

    assert grade("e-smiles", PUBLISHED[0], "c1ccc(*)cc1<sep><a>4:R1</a>") == (1.0, "ok")
    assert grade("e-smiles", PUBLISHED[0], "c1ccccc1") == (0.0, "ok")
    assert grade("e-smiles", "clccecc1", "c1ccccc1") == (None, "invalid_gold")
    assert grade("smiles", "OCC", "CCO") == (1.0, "ok")
    assert grade("smiles", "C[C@H](F)Cl", "C[C@@H](F)Cl") == (0.0, "ok")
    assert grade("smiles", "CCO", "C" * 20_000) == (0.0, "ok")
    assert grade("smiles", "CCO", "CCO.CCN") == (0.0, "ok")
    assert grade("smiles", "C" * 20_000, "CCO") == (None, "invalid_gold")
