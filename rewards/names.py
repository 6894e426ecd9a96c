"""What is said of a name that nothing bears: which known ones are near it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN_NAMES = 20


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`did you mean a or b?` with the known names nearest to `name`; empty where none is near."""
    near = difflib.get_close_matches(str(name), sorted(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def unknown_name(what: str, name: object, known: Iterable[str]) -> str:
    """The whole message: with the nearest known names, or the first of all where none is near."""
    names = sorted(known)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    listed = ", ".join(names[:SHOWN_NAMES]) + more
    return f"{what} {name!r} is not known; {did_you_mean(name, names) or 'known: ' + (listed or 'none')}"
