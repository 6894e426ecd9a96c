"""The text of E-SMILES taken apart: wrappers off, sizes capped, records read. No chemistry, no RDKit.

Everything is refused here that RDKit must not see: `MolToSmiles` of a chain of 20,000 atoms ends the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_CHARS = 4_000
MAX_ATOMS = 400
MAX_DEGREE = 16
"""Neighbours of one atom; ferrocene's iron has ten. Ring finding takes seconds where dummies have a hundred."""
MAX_DEPTH = 60
MAX_RECORDS = 200
MAX_WRAPPED_CHARS = 50_000

_NOT_SMILES = re.compile(r"[\s|]|(?<!-)>|<(?!-)")
"""`->` and `<-` are dative bonds; any other `<` or `>` is a tag or a reaction."""
_ATOM = re.compile(r"\[[^\[\]]*\]|Cl|Br|[BCNOPSFIbcnops*]")
_REPEAT = re.compile(r"\|Sg:([A-Za-z0-9]+(?:-[A-Za-z0-9]+)?)\|")
_INDEXED = re.compile(r"(\d{1,6}):(.+)", re.DOTALL)
_ARC = re.compile(r"(\d{1,6}):([^:<>\s]*):\[(\d{1,6}):(\d{1,6})\]")
_GROUP = re.compile(r"((?:\[\d{1,6}:\d{1,6}\]:)+)\|Sg:([A-Za-z0-9]+(?:-[A-Za-z0-9]+)?)\|")
_PORTS = re.compile(r"\[(\d+):(\d+)\]")
_NOTE = re.compile(r"<id>\[[^\]\s]+\]")
_MARKUSH = re.compile(r"([RXYZALQWMEGJ])(\d{1,3})")
"""Single letters that stand for a variable group. Element symbols are left out: `C6`, `N3`, `F5` are formulas."""
_MULTIPLE = re.compile(r"(.+?)\?([A-Za-z0-9]+(?:-[A-Za-z0-9]+)?)", re.DOTALL)
_FENCE = re.compile(r"```[\w-]*\s*(.*?)\s*```", re.DOTALL)

ATTACHMENT = "<dum>"


@dataclass(slots=True)
class Records:
    """An E-SMILES string as written; nothing is bound to atoms yet. Labels are normalised."""

    smiles: str
    atoms: list[tuple[int, str]] = field(default_factory=list)
    rings: list[tuple[int, str]] = field(default_factory=list)
    circles: list[tuple[int, str]] = field(default_factory=list)
    arcs: list[tuple[int, str, int, int]] = field(default_factory=list)
    """id, name, from atom, to atom."""
    arc_labels: list[tuple[int, str]] = field(default_factory=list)
    groups: list[tuple[tuple[tuple[int, int], ...], str]] = field(default_factory=list)
    """(inner atom, outer atom) ports, and the count."""
    repeats: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def count(self) -> int:
        bound = len(self.atoms) + len(self.rings) + len(self.circles) + len(self.arcs) + len(self.arc_labels)
        return bound + len(self.groups) + len(self.repeats) + len(self.nested) + len(self.bad)


def read(text: str) -> Records | None:
    """Take an E-SMILES string apart; None where it is empty or over a cap."""
    body = unwrap(text)
    if body is None or not body or len(body) > MAX_CHARS:
        return None
    smiles, _, extension = body.partition("<sep>")
    smiles = smiles.strip()
    if not smiles or not smiles.isascii() or _NOT_SMILES.search(smiles) or not _small_enough(smiles):
        return None
    records = Records(smiles)
    cursor = 0
    while cursor < len(extension):
        if extension[cursor].isspace():
            cursor += 1
            continue
        cursor = _read_one(extension, cursor, records)
        if records.count() > MAX_RECORDS:
            return None
    return records


def unwrap(text: str) -> str | None:
    """The string without `<answer>`, `<E-SMILES>`, code fence or back-ticks around it; None where far too long."""
    if len(text) > MAX_WRAPPED_CHARS:
        return None
    body = text.strip()
    for _ in range(6):
        before = body
        for tag in ("answer", "e-smiles"):
            body = _inside(body, tag)
        fence = _FENCE.fullmatch(body)
        if fence is not None:
            body = fence.group(1)
        if len(body) > 2 and body[0] == body[-1] == "`" and "`" not in body[1:-1]:
            body = body[1:-1]
        body = body.strip()
        if body == before:
            break
    return body


def normalise_label(label: str) -> str | None:
    """`R1?n` as `R[1]?n`; None for a label that the format does not allow."""
    label = label.strip()
    base, multiple = label, ""
    match = _MULTIPLE.fullmatch(label)
    if match is not None:
        base, multiple = match.group(1).strip(), "?" + match.group(2)
    markush = _MARKUSH.fullmatch(base)
    if markush is not None:
        base = f"{markush.group(1)}[{int(markush.group(2))}]"
    if not base or base == ATTACHMENT or _NOTE.fullmatch(base):
        return base + multiple or None
    return None if "<" in base or ">" in base else base + multiple


def _small_enough(smiles: str) -> bool:
    depth = 0
    for char in smiles:
        depth += (char == "(") - (char == ")")
        if depth > MAX_DEPTH:
            return False
    return sum(1 for _ in _ATOM.finditer(smiles)) <= MAX_ATOMS


def _inside(text: str, tag: str) -> str:
    lowered = text.lower()
    opening, closing = f"<{tag}>", f"</{tag}>"
    if lowered.count(opening) != 1 or lowered.count(closing) != 1:
        return text
    start, end = lowered.find(opening) + len(opening), lowered.find(closing)
    return text[start:end] if start <= end else text


def _read_one(text: str, start: int, records: Records) -> int:
    """Read the record at `start` into `records`; returns where the next one begins."""
    repeat = _REPEAT.match(text, start)
    if repeat is not None:
        records.repeats.append(repeat.group(1))
        return repeat.end()
    tag = text[start + 1 : start + 2]
    if text[start] == "<" and tag in tuple("adrcgvs") and text[start + 2 : start + 3] == ">":
        end = text.find(f"</{tag}>", start)
        if end >= 0:
            body = text[start + 3 : end].strip()
            if not _READERS[tag](body, records):
                records.bad.append(f"{tag} {body}")
            return end + 4
    following = re.compile(r"<[adrcgvs]>|\|Sg:").search(text, start + 1)
    end = following.start() if following is not None else len(text)
    records.bad.append(text[start:end].strip())
    return end


def _indexed(body: str) -> tuple[int, str] | None:
    match = _INDEXED.fullmatch(body)
    label = normalise_label(match.group(2)) if match is not None else None
    return None if match is None or label is None else (int(match.group(1)), label)


def _read_atom(body: str, records: Records) -> bool:
    item = _indexed(body)
    if item is not None:
        records.atoms.append(item)
    return item is not None


def _read_attachment(body: str, records: Records) -> bool:
    item = _indexed(body)
    if item is None or item[1] != ATTACHMENT:
        return False
    records.atoms.append(item)
    return True


def _read_ring(body: str, records: Records) -> bool:
    on_arc = body.startswith("<v>")
    item = _indexed(body.removeprefix("<v>"))
    if item is None or _special(item[1]):
        return False
    (records.arc_labels if on_arc else records.rings).append(item)
    return True


def _read_circle(body: str, records: Records) -> bool:
    item = _indexed(body)
    if item is None or _special(item[1]):
        return False
    records.circles.append(item)
    return True


def _special(label: str) -> bool:
    return label.startswith("<")


def _read_arc(body: str, records: Records) -> bool:
    match = _ARC.fullmatch(body)
    if match is None:
        return False
    records.arcs.append((int(match.group(1)), match.group(2), int(match.group(3)), int(match.group(4))))
    return True


def _read_group(body: str, records: Records) -> bool:
    match = _GROUP.fullmatch(body)
    if match is None:
        return False
    ports = tuple((int(inner), int(outer)) for inner, outer in _PORTS.findall(match.group(1)))
    records.groups.append((ports, match.group(2)))
    return True


def _read_nested(body: str, records: Records) -> bool:
    if "<s>" in body:  # the format has one level
        return False
    records.nested.append(body)
    return True


_READERS = {
    "a": _read_atom,
    "d": _read_attachment,
    "r": _read_ring,
    "c": _read_circle,
    "v": _read_arc,
    "g": _read_group,
    "s": _read_nested,
}
