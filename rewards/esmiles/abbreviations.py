"""Textbook abbreviations on dummy atoms of degree 1, replaced by the atoms they stand for."""

from __future__ import annotations

import functools

from rdkit import Chem

from rewards.esmiles.structure import Structure, from_smiles

_GROUPS = {
    "Me CH3 H3C": "C",
    "Et C2H5 CH2CH3": "CC",
    "Pr nPr n-Pr C3H7": "CCC",
    "iPr i-Pr Pri": "C(C)C",
    "Bu nBu n-Bu C4H9": "CCCC",
    "iBu i-Bu": "CC(C)C",
    "sBu s-Bu": "C(C)CC",
    "tBu t-Bu But": "C(C)(C)C",
    "Cy": "C1CCCCC1",
    "Ph C6H5": "c1ccccc1",
    "Bn": "Cc1ccccc1",
    "Bz PhCO": "C(=O)c1ccccc1",
    "Ac COCH3 CH3CO MeCO COMe": "C(=O)C",
    "Boc": "C(=O)OC(C)(C)C",
    "Cbz": "C(=O)OCc1ccccc1",
    "Fmoc": "C(=O)OCC1c2ccccc2-c2ccccc21",
    "Ts Tos": "S(=O)(=O)c1ccc(C)cc1",
    "Ms SO2Me SO2CH3 MeSO2": "S(=O)(=O)C",
    "Tf SO2CF3": "S(=O)(=O)C(F)(F)F",
    "PMB": "Cc1ccc(OC)cc1",
    "Trt": "C(c1ccccc1)(c1ccccc1)c1ccccc1",
    "THP": "C1CCCCO1",
    "MOM": "COC",
    "TMS": "[Si](C)(C)C",
    "TES": "[Si](CC)(CC)CC",
    "TBS TBDMS": "[Si](C)(C)C(C)(C)C",
    "TIPS": "[Si](C(C)C)(C(C)C)C(C)C",
    "TBDPS": "[Si](c1ccccc1)(c1ccccc1)C(C)(C)C",
    "Bpin": "B1OC(C)(C)C(C)(C)O1",
    "CF3 F3C": "C(F)(F)F",
    "CHF2": "C(F)F",
    "CCl3 Cl3C": "C(Cl)(Cl)Cl",
    "C2F5": "C(F)(F)C(F)(F)F",
    "OH HO": "O",
    "OMe MeO OCH3 H3CO CH3O": "OC",
    "OEt EtO OC2H5": "OCC",
    "OPh PhO": "Oc1ccccc1",
    "OBn BnO": "OCc1ccccc1",
    "OAc AcO": "OC(=O)C",
    "OTs TsO": "OS(=O)(=O)c1ccc(C)cc1",
    "OMs MsO": "OS(=O)(=O)C",
    "OTf TfO": "OS(=O)(=O)C(F)(F)F",
    "OtBu tBuO Ot-Bu": "OC(C)(C)C",
    "OTBS TBSO": "O[Si](C)(C)C(C)(C)C",
    "OCF3 F3CO": "OC(F)(F)F",
    "SH HS": "S",
    "SMe MeS SCH3": "SC",
    "NH2 H2N": "N",
    "NHMe MeHN": "NC",
    "NMe2 Me2N N(CH3)2": "N(C)C",
    "NEt2 Et2N": "N(CC)CC",
    "NHBoc BocHN": "NC(=O)OC(C)(C)C",
    "NHAc AcHN": "NC(=O)C",
    "NO2 O2N": "[N+](=O)[O-]",
    "N3": "N=[N+]=[N-]",
    "CN": "C#N",
    "CHO OHC": "C=O",
    "CO2H COOH HO2C HOOC": "C(=O)O",
    "CO2Me COOMe CO2CH3 COOCH3 MeO2C MeOOC": "C(=O)OC",
    "CO2Et COOEt EtO2C EtOOC": "C(=O)OCC",
    "CO2tBu COOtBu tBuO2C": "C(=O)OC(C)(C)C",
    "CONH2 H2NOC": "C(=O)N",
    "SO3H HO3S": "S(=O)(=O)O",
    "SO2NH2": "S(=O)(=O)N",
    "F": "F",
    "Cl": "Cl",
    "Br": "Br",
    "I": "I",
    "H": "[H]",
}
_SMILES = {name: smiles for names, smiles in _GROUPS.items() for name in names.split()}


def expand(structure: Structure) -> Structure | None:
    """The structure with its abbreviations written out, or None where it has none.

    A dummy is replaced when it has one single bond, no charge and one label, an abbreviation without multiplicity, and
    no link touches it. It becomes the first atom of its group, so that the order of bonds at its neighbour stays.
    """
    linked = {atom for link in structure.links for pair in link.pairs for atom in pair}
    mol = Chem.RWMol(structure.raw)
    expanded = []
    for index, labels in structure.atom_labels.items():
        smiles = _SMILES.get(labels[0][1]) if len(labels) == 1 and labels[0][0] == "a" else None
        if smiles is not None and index not in linked and _replaceable(mol.GetAtomWithIdx(index)):
            _graft(mol, index, _fragment(smiles))
            expanded.append(index)
    if not expanded:
        return None
    kept = {index: labels for index, labels in structure.atom_labels.items() if index not in expanded}
    return Structure(mol.GetMol(), kept, structure.rings, structure.links, structure.whole, structure.bad)


def _replaceable(atom: Chem.Atom) -> bool:
    if atom.GetAtomicNum() or atom.GetDegree() != 1 or atom.GetFormalCharge() or atom.GetIsotope():
        return False
    bond = atom.GetBonds()[0]
    # Between lower-case neighbours the parser may mark an unwritten bond as aromatic; a dummy is never lower case.
    return bool(bond.GetBondType() == Chem.BondType.SINGLE)


@functools.cache
def _fragment(smiles: str) -> Chem.Mol:
    fragment = from_smiles(smiles)
    assert fragment is not None, smiles
    return fragment


def _graft(mol: Chem.RWMol, index: int, fragment: Chem.Mol) -> None:
    places: dict[int, int] = {}
    for atom in fragment.GetAtoms():
        if atom.GetIdx() == 0:
            target = mol.GetAtomWithIdx(index)
            target.SetAtomicNum(atom.GetAtomicNum())
            target.SetFormalCharge(atom.GetFormalCharge())
            target.SetIsAromatic(atom.GetIsAromatic())
            # `*` and `[Si]` carry no implicit hydrogens, an organic-subset atom does.
            target.SetNoImplicit(atom.GetNoImplicit())
            places[0] = index
        else:
            places[atom.GetIdx()] = mol.AddAtom(atom)
    for bond in fragment.GetBonds():
        one, other = places[bond.GetBeginAtomIdx()], places[bond.GetEndAtomIdx()]
        mol.AddBond(one, other, bond.GetBondType())
        mol.GetBondBetweenAtoms(one, other).SetIsAromatic(bond.GetIsAromatic())
