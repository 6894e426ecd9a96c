"""Plain SMILES and reaction SMILES as answers: taken out of their wrapping, atom maps removed, in canonical form."""

from __future__ import annotations

import re
from typing import NamedTuple

from rewards import esmiles
from rewards.text import bare

MAX_REACTION_CHARS = 3 * esmiles.MAX_CHARS + 2

_ATOM_MAP = re.compile(r"(\[[^\[\]:]{1,40}):\d{1,6}\]")
_TAG = re.compile(r"<(?!-)")
_ARROW = re.compile(r"(?<!-)>")
"""A `>` between roles; the one in `->` is a dative bond."""


class Reaction(NamedTuple):
    """The three roles as written, "" for a role without molecules.

    Example:
        Reaction(reactants="CC(=O)O.CCO", agents="OS(O)(=O)=O", products="CC(=O)OCC.O")
    """

    reactants: str
    agents: str
    products: str


def canonical(smiles: str) -> str | None:
    """A form that equal molecules share, or None where the text is no SMILES string or over the caps of E-SMILES.

    The molecules of a mixture are free in order; how often one occurs counts.
    """
    return None if _TAG.search(smiles) else esmiles.key(smiles)


def plain_smiles(text: str) -> str | None:
    """The SMILES string that an answer is, without box, dollar signs, back-ticks and atom maps; None if it is none."""
    if len(text) > esmiles.MAX_CHARS:
        return None
    # As it is first: `bare` takes bold marks off, and a SMILES string may begin and end with dummy atoms.
    for candidate in (text.strip(), bare(text)):
        smiles = without_maps(candidate)
        if canonical(smiles) is not None:
            return smiles
    return None


def read_reaction(text: str) -> Reaction | None:
    """The reaction `reactants>agents>products` that an answer is, or None; the molecules are not looked at.

    Reactants and products must be there, agents may be missing: `A.B>>C`.
    """
    if len(text) > MAX_REACTION_CHARS:
        return None
    roles = [role.strip() for role in _ARROW.split(without_maps(bare(text)))]
    return Reaction(*roles) if len(roles) == 3 and roles[0] and roles[2] else None


def without_maps(smiles: str) -> str:
    """`[CH3:1][OH:2]` as `[CH3][OH]`: a map says where an atom comes from and nothing about the structure."""
    return _ATOM_MAP.sub(r"\1]", smiles)


def warm_up() -> None:
    """Load RDKit."""
    esmiles.key("C")
