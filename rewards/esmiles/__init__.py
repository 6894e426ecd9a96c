"""E-SMILES: SMILES with labels on atoms and rings, compared as structures instead of as text.

`key` gives equal strings for the same structure in whatever order its atoms and records are written; `score` compares a
prediction with a gold answer. Format: MolParser (arXiv 2411.11098). RDKit is loaded at the first call.
"""

from __future__ import annotations

from rewards.esmiles.reader import MAX_CHARS

__all__ = ["MAX_CHARS", "key", "score"]


def key(text: str) -> str | None:
    """The canonical form of an E-SMILES string; None where it is not valid or too large.

    Records that can't be read or that point nowhere are part of the key, so that they equal nothing without them.
    """
    from rewards.esmiles.structure import canonical, parse

    structure = parse(text)
    return None if structure is None else canonical(structure)


def score(prediction: str, gold: str, partial: bool = False) -> float | None:
    """1.0 for the same structure, 0.0 for an invalid prediction, None for an invalid gold answer.

    With `partial`, a valid prediction that differs gets up to 0.9, see `rewards.esmiles.compare`.
    """
    from rewards.esmiles.compare import compare

    return compare(prediction, gold, partial=partial)
