"""Rings that hold a dummy atom, made aromatic where they are conjugated all round.

RDKit does not call such a ring aromatic. Written in lower case it is turned into one of its Kekulé forms, and which one
depends on the order of the atoms, down to which of them gets a hydrogen. Here every such ring gets one form.
"""

from __future__ import annotations

from rdkit import Chem

_LONE_PAIR = {7: 3, 15: 3, 8: 2, 16: 2, 34: 2, 52: 2}
"""Elements with a lone pair to give to the ring, and the number of neighbours up to which they still have it."""


def aromatise_dummy_rings(raw: Chem.Mol, clean: Chem.Mol) -> Chem.Mol:
    """A copy of `clean` in which conjugated rings with a dummy, and rings fused to them, are aromatic.

    Args:
        raw: the molecule as parsed, not sanitised: its aromatic flags are the lower-case atoms.
        clean: the same molecule sanitised, with ring information and the same atom indices.
    """
    rings = [tuple(ring) for ring in clean.GetRingInfo().AtomRings()]
    chosen = [ring for ring in rings if _qualifies(ring, raw, clean)]
    if not chosen:
        return clean
    waiting = [ring for ring in rings if ring not in chosen and all(_lower_case(raw, i) for i in ring)]
    grown = True
    while grown:  # an all-lower-case ring fused to a chosen one shares its arbitrary Kekulé form
        members = {index for ring in chosen for index in ring}
        fused = [ring for ring in waiting if len(members.intersection(ring)) >= 2]
        chosen += fused
        waiting = [ring for ring in waiting if ring not in fused]
        grown = bool(fused)
    result = Chem.RWMol(clean)
    hydrogens = {index: _hydrogens(raw, clean, index) for ring in chosen for index in ring}
    for index, count in hydrogens.items():
        atom = result.GetAtomWithIdx(index)
        atom.SetIsAromatic(True)
        atom.SetNumRadicalElectrons(0)
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
        if atom.GetAtomicNum():
            atom.SetNoImplicit(True)
            atom.SetNumExplicitHs(count)
    for ring in chosen:
        for one, other in zip(ring, ring[1:] + ring[:1], strict=True):
            bond = result.GetBondBetweenAtoms(one, other)
            bond.SetStereo(Chem.BondStereo.STEREONONE)
            bond.SetBondDir(Chem.BondDir.NONE)
            bond.SetBondType(Chem.BondType.AROMATIC)
            bond.SetIsAromatic(True)
    mol = result.GetMol()
    mol.UpdatePropertyCache(strict=False)
    return mol


def _qualifies(ring: tuple[int, ...], raw: Chem.Mol, clean: Chem.Mol) -> bool:
    real = [index for index in ring if clean.GetAtomWithIdx(index).GetAtomicNum()]
    if len(real) == len(ring) or not real:
        return False
    if all(_lower_case(raw, index) for index in real):
        return True
    if len(ring) < 5 or not all(_lower_case(raw, i) or _conjugated(clean.GetAtomWithIdx(i)) for i in real):
        return False
    pairs = zip(ring, ring[1:] + ring[:1], strict=True)
    return any(_multiple(clean.GetBondBetweenAtoms(one, other)) for one, other in pairs)


def _lower_case(raw: Chem.Mol, index: int) -> bool:
    return bool(raw.GetAtomWithIdx(index).GetIsAromatic())


def _multiple(bond: Chem.Bond) -> bool:
    return bond.GetBondType() in (Chem.BondType.DOUBLE, Chem.BondType.AROMATIC)


def _conjugated(atom: Chem.Atom) -> bool:
    limit = _LONE_PAIR.get(atom.GetAtomicNum())
    if limit is not None and atom.GetDegree() + atom.GetTotalNumHs() <= limit:
        return True
    return any(_multiple(bond) for bond in atom.GetBonds())


def _hydrogens(raw: Chem.Mol, clean: Chem.Mol, index: int) -> int:
    """Hydrogens of a ring atom: from the valence of an aromatic atom where it was written in lower case."""
    if not _lower_case(raw, index):
        return int(clean.GetAtomWithIdx(index).GetTotalNumHs())
    atom = raw.GetAtomWithIdx(index)
    if atom.GetNoImplicit() or atom.GetAtomicNum() != 6:
        return int(atom.GetNumExplicitHs())
    outside = any(bond.GetBondType() == Chem.BondType.DOUBLE for bond in atom.GetBonds())
    return max(0, 3 - atom.GetDegree() - int(outside))
