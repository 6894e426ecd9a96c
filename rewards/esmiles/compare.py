"""A predicted structure against the gold one: equal keys, equal after writing out abbreviations, or partial credit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from rewards.esmiles.abbreviations import expand
from rewards.esmiles.structure import Structure, canonical, finish, parse, symmetry_classes


def compare(prediction: str, gold: str, *, partial: bool) -> float | None:
    """The score of `rewards.esmiles.score`.

    Partial credit, always below 1: `0.9 * S * (0.5 + 0.5 * F1)`, times 0.9 with bad records. S is 1 for the same
    isomeric skeleton, 0.85 for the same graph without stereo, else `0.5 * max(0, (T - 0.4) / 0.6)^2` with T the
    Tanimoto similarity of counted Morgan fingerprints of radius 2. F1 is over pairs of label and symmetry class where
    the graphs agree, over labels alone otherwise.
    """
    expected = parse(gold)
    gold_key = canonical(expected) if expected is not None and not expected.bad else None
    if expected is None or gold_key is None:
        return None
    got = parse(prediction)
    got_key = canonical(got) if got is not None else None
    if got is None or got_key is None:
        return 0.0
    if got_key == gold_key:
        return 1.0
    expected_full, got_full = expand(expected) or expected, expand(got) or got
    if expected_full is not expected or got_full is not got:
        full_key = canonical(got_full)
        if full_key is not None and full_key == canonical(expected_full):
            return 1.0
    return _partial(got_full, expected_full) if partial else 0.0


@dataclass(slots=True)
class _Skeleton:
    mol: Chem.Mol
    isomeric: str
    flat: str


def _partial(got: Structure, gold: Structure) -> float:
    ours, theirs = _skeleton(got), _skeleton(gold)
    if ours is None or theirs is None:
        return 0.0
    same_graph = ours.flat == theirs.flat
    if ours.isomeric == theirs.isomeric:
        similarity = 1.0
    elif same_graph:
        similarity = 0.85
    else:
        similarity = 0.5 * max(0.0, (_tanimoto(ours.mol, theirs.mol) - 0.4) / 0.6) ** 2
    f1 = _f1(_labels(got, ours, placed=same_graph), _labels(gold, theirs, placed=same_graph))
    return 0.9 * similarity * (0.5 + 0.5 * f1) * (0.9 if got.bad else 1.0)


def _skeleton(structure: Structure) -> _Skeleton | None:
    finished = finish(structure.raw, {})
    if finished is None:
        return None
    mol, _ = finished
    return _Skeleton(mol, Chem.MolToSmiles(mol), Chem.MolToSmiles(mol, isomericSmiles=False))


def _labels(structure: Structure, skeleton: _Skeleton, *, placed: bool) -> Counter[object]:
    """The labels as a multiset, each with where it stands up to symmetry if `placed`."""
    flat = Chem.Mol(skeleton.mol)
    Chem.RemoveStereochemistry(flat)  # so that the classes of two stereoisomers can be compared
    classes = symmetry_classes(flat) if placed else {}

    def place(atoms: frozenset[int] | tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(classes.get(atom, -1) for atom in atoms)) if placed else ()

    found: Counter[object] = Counter()
    for index, labels in structure.atom_labels.items():
        found.update((kind, label, place((index,))) for kind, label in labels)
    found.update(("r", label, place(members)) for members, label in structure.rings)
    for link in structure.links:
        atoms = tuple(atom for pair in link.pairs for atom in pair)
        found[(link.kind, link.name, tuple(sorted(link.labels)), place(atoms))] += 1
    found.update(("whole", label, ()) for label in structure.whole)
    return found


def _f1(got: Counter[object], gold: Counter[object]) -> float:
    if not got and not gold:
        return 1.0
    return 2 * (got & gold).total() / (got.total() + gold.total())


def _tanimoto(one: Chem.Mol, other: Chem.Mol) -> float:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2)
    prints = [generator.GetSparseCountFingerprint(mol) for mol in (one, other)]
    return float(DataStructs.TanimotoSimilarity(*prints))
