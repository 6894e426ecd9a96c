"""Records bound to the atoms and rings of an RDKit molecule, and the canonical key of the result.

Ring k is the k-th ring of `RingInfo.AtomRings()`. Its order changed in RDKit 2026.9; a test pins it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from rdkit import Chem, rdBase

from rewards.esmiles.aromatic import aromatise_dummy_rings
from rewards.esmiles.reader import MAX_ATOMS, MAX_DEGREE, Records, read

Label = tuple[str, str]
"""Kind of record and label text, such as ("a", "R[1]")."""


@dataclass(slots=True)
class Link:
    """A record that ties several atoms together: a repeat group with ports, or a virtual arc."""

    kind: str
    name: str
    pairs: tuple[tuple[int, int], ...]
    """Pairs of atoms; (inner, outer) for a repeat group."""
    labels: tuple[str, ...] = ()


@dataclass(slots=True)
class Structure:
    """A molecule as written, not sanitised, with every record bound to it."""

    raw: Chem.Mol
    atom_labels: dict[int, list[Label]] = field(default_factory=lambda: defaultdict(list))
    rings: list[tuple[frozenset[int], str]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    """Labels of the molecule as a whole: repeat units, nested units, names of rings that are not drawn as atoms."""
    bad: list[str] = field(default_factory=list)
    """Records that can't be read or that point nowhere, as written."""


def parse(text: str, *, nested: bool = False) -> Structure | None:
    """Read an E-SMILES string and bind its records; None where it is not a molecule or over a size cap."""
    records = read(text)
    if records is None:
        return None
    with rdBase.BlockLogs():
        raw = from_smiles(records.smiles)
        clean = _sanitised(raw) if raw is not None and _small_enough(raw) else None
    if raw is None or clean is None:
        return None
    structure = Structure(raw)
    for atom in raw.GetAtoms():
        if atom.GetAtomMapNum():
            structure.atom_labels[atom.GetIdx()].append(("map", str(atom.GetAtomMapNum())))
            atom.SetAtomMapNum(0)
    structure.bad += records.bad
    structure.whole += [f"Sg:{count}" for count in records.repeats]
    rings = [frozenset(ring) for ring in clean.GetRingInfo().AtomRings()]
    _bind_atoms(records, structure)
    _bind_rings(records, rings, structure)
    _bind_links(records, structure)
    _bind_nested(records, structure, allowed=not nested)
    return structure


def canonical(structure: Structure) -> str | None:
    """The key as JSON: canonical SMILES of the coloured molecule, what its colours mean, links, labels of the whole."""
    colours = colours_of(structure)
    finished = finish(structure.raw, colours)
    if finished is None:
        return None
    mol, table = finished
    parts: list[object] = [Chem.MolToSmiles(mol), table, links_of(structure, mol), sorted(structure.whole)]
    if structure.bad:
        parts.append({"bad": sorted(structure.bad)})
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def colours_of(structure: Structure) -> dict[int, list[Label]]:
    """Atom -> labels of every record that touches it; a ring's label is on each of its atoms."""
    colours = defaultdict(list, {atom: list(labels) for atom, labels in structure.atom_labels.items()})
    for members, label in structure.rings:
        for atom in members:
            colours[atom].append(("r", label))
    for link in structure.links:
        role = json.dumps([link.kind, link.name, sorted(link.labels), len(link.pairs)])
        for one, other in link.pairs:
            colours[one].append((link.kind + "<", role))
            colours[other].append((link.kind + (">" if link.kind == "g" else "<"), role))
    return colours


def finish(raw: Chem.Mol, colours: dict[int, list[Label]]) -> tuple[Chem.Mol, list[object]] | None:
    """A sanitised molecule with each distinct label set as an isotope, and the table of what each isotope means.

    Real isotopes become part of the table too, so that they can't be mistaken for a label. Atoms keep their indices,
    except that explicit hydrogens without a label are gone; `_index` holds the index before that.
    """
    with rdBase.BlockLogs():
        mol = _sanitised(raw)
        if mol is None:
            return None
        mol = aromatise_dummy_rings(raw, mol)
        tags: dict[int, tuple[int, tuple[Label, ...]]] = {}
        for atom in mol.GetAtoms():
            index = atom.GetIdx()
            atom.SetIntProp("_index", index)
            if atom.GetIsotope() or colours.get(index):
                tags[index] = (atom.GetIsotope(), tuple(sorted(colours.get(index, ()))))
        table = sorted(set(tags.values()))
        rank = {tag: number for number, tag in enumerate(table, start=1)}
        for index, tag in tags.items():
            mol.GetAtomWithIdx(index).SetIsotope(rank[tag])
        # Stereo only after colouring: a centre may be one through the labels of its neighbours alone.
        Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
        if any(atom.GetAtomicNum() == 1 for atom in mol.GetAtoms()):
            parameters: Any = Chem.RemoveHsParameters()
            parameters.removeDefiningBondStereo = True
            mol = Chem.RemoveHs(mol, parameters, sanitize=False)
            mol.UpdatePropertyCache(strict=False)
            Chem.GetSymmSSSR(mol)  # removing atoms drops the ring information, which fingerprints need
    return mol, [list(tag) for tag in table]


def links_of(structure: Structure, mol: Chem.Mol) -> list[object]:
    """The links by symmetry class of their atoms in the finished molecule, in canonical order.

    Symmetry classes and not a full order: where atoms are equivalent, which of them is linked is not told apart, and
    the key stays independent of the order in which they were written.
    """
    if not structure.links:
        return []
    classes = symmetry_classes(mol)
    described = []
    for link in structure.links:
        pairs = [[classes.get(one, -1), classes.get(other, -1)] for one, other in link.pairs]
        if link.kind == "v":
            pairs = [sorted(pair) for pair in pairs]
        described.append([link.kind, link.name, sorted(pairs), sorted(link.labels)])
    return sorted(described, key=json.dumps)


def symmetry_classes(mol: Chem.Mol) -> dict[int, int]:
    """Index as written -> symmetry class, for the atoms of a finished molecule."""
    ranks = Chem.CanonicalRankAtoms(mol, breakTies=False)
    return {atom.GetIntProp("_index"): rank for atom, rank in zip(mol.GetAtoms(), ranks, strict=True)}


def from_smiles(smiles: str) -> Chem.Mol | None:
    """Parse without sanitising and with explicit hydrogens kept, so that the indices are those of the text."""
    parameters: Any = Chem.SmilesParserParams()
    parameters.sanitize = False
    parameters.removeHs = False
    parameters.allowCXSMILES = False
    parameters.parseName = False
    return Chem.MolFromSmiles(smiles, parameters)


def _small_enough(raw: Chem.Mol) -> bool:
    return 0 < raw.GetNumAtoms() <= MAX_ATOMS and all(atom.GetDegree() <= MAX_DEGREE for atom in raw.GetAtoms())


def _sanitised(raw: Chem.Mol) -> Chem.Mol | None:
    mol = Chem.Mol(raw)
    try:
        Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError):
        # ValueError: a wrong valence, or a ring that can't be kekulised. RuntimeError: a failed precondition inside
        # RDKit, as for a charge or a valence that its counters can't hold. Neither is a molecule.
        return None
    return mol


def _bind_atoms(records: Records, structure: Structure) -> None:
    count = structure.raw.GetNumAtoms()
    labelled = set()
    for index, label in records.atoms:
        if index < count:
            structure.atom_labels[index].append(("a", label))
            labelled.add(index)
        else:
            structure.bad.append(f"a {index}:{label}")
    for index, label in records.circles:
        free = index < count and index not in labelled and structure.raw.GetAtomWithIdx(index).GetAtomicNum() == 0
        if free:
            structure.atom_labels[index].append(("c", label))
        else:
            structure.whole.append(f"c:{label}")


def _bind_rings(records: Records, rings: list[frozenset[int]], structure: Structure) -> None:
    for index, label in records.rings:
        if index < len(rings):
            structure.rings.append((rings[index], label))
        else:
            structure.bad.append(f"r {index}:{label}")


def _bind_links(records: Records, structure: Structure) -> None:
    count = structure.raw.GetNumAtoms()
    ids = [arc[0] for arc in records.arcs]
    for number, name, one, other in records.arcs:
        labels = tuple(label for arc, label in records.arc_labels if arc == number)
        if max(one, other) < count and ids.count(number) == 1:
            structure.links.append(Link("v", name, ((one, other),), labels))
        else:
            structure.bad.append(f"v {number}:{name}:[{one}:{other}]")
    structure.bad += [f"r <v>{arc}:{label}" for arc, label in records.arc_labels if ids.count(arc) != 1]
    for ports, repeat in records.groups:
        if all(max(pair) < count for pair in ports):
            structure.links.append(Link("g", repeat, ports))
        else:
            structure.bad.append(f"g {ports}:{repeat}")


def _bind_nested(records: Records, structure: Structure, *, allowed: bool) -> None:
    for text in records.nested:
        inner = parse(text, nested=True) if allowed else None
        inner_key = canonical(inner) if inner is not None and not inner.bad else None
        if inner_key is None:
            structure.bad.append(f"s {text}")
        else:
            structure.whole.append(f"s:{inner_key}")
