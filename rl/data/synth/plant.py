"""Faults planted into a synthetic split, so that a cleaning of it can be graded: what went in is known.

A planted row names its kind in `data_source` (`planted:near_duplicate`) and the row that it was made from in `ability`.
Repetitions come after the sound rows; other faults take the place of a sound row. Each kind touches one thing.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from rl.config.data import PlantKind
from rl.errors import DataError

Row = dict[str, Any]
MARK = "planted:"
MARKER = "<image>"

REPETITIONS = ("exact_duplicate", "near_duplicate", "conflicting_answers", "leaked")
"""Kinds that repeat a row, of the split or of the evaluation split, instead of taking its place."""

NOT_A_GOLD: Mapping[str, str] = {
    "number": "several",
    "bbox": "[12,40]",
    "multiple-choice": "the second",
    "e-smiles": "C1CC(",
}
"""What is no answer of the type."""


def planted(kind: str) -> str:
    """`data_source` of a planted row."""
    return MARK + kind


def plant(
    counts: Mapping[PlantKind, int], sound: Sequence[Row], evaluation: Sequence[Row], split: str, seed: int
) -> list[Row]:
    """The rows of a split with faults among them and after them.

    Raises:
        DataError: the split has too few rows that can bear a kind of fault.
    """
    rows = list(sound)
    left = set(range(len(rows)))  # places of sound rows
    for kind in sorted(counts, key=lambda kind: kind in REPETITIONS):
        chance = random.Random(f"{seed}|{split}|{kind}")
        pool = evaluation if kind == "leaked" else rows
        able = [i for i in (range(len(pool)) if kind == "leaked" else sorted(left)) if _bears(kind, pool[i])]
        if counts[kind] > len(able):
            raise DataError(
                f"split {split!r} is to hold {counts[kind]} rows of kind {kind}, but only {len(able)} rows can bear "
                "it; plant fewer, or ask for more rows"
            )
        for number, place in enumerate(chance.sample(able, counts[kind])):
            made = _made(kind, pool[place], f"{kind}_{split}_{number}", chance)
            if kind in REPETITIONS:
                rows.append(made)
            else:
                rows[place] = made
            if kind != "leaked":
                left.discard(place)  # one fault for each row
    return rows


def _made(kind: PlantKind, model: Row, row_id: str, chance: random.Random) -> Row:
    row = {**model, "answer": list(model["answer"]), "images": [dict(image) for image in model["images"]]}
    _MAKERS[kind](row, chance)
    return row | {"id": row_id, "data_source": planted(kind), "ability": model["id"]}


def _bears(kind: PlantKind, row: Row) -> bool:
    if kind in ("broken_image", "blank_image"):
        return bool(row["images"])
    if kind == "bad_gold":
        return row["answer_type"] in NOT_A_GOLD
    if kind in ("wrong_gold", "conflicting_answers"):
        return row["answer_type"] in ("number", "multiple-choice")
    return row["answer_type"] == "multiple-choice" if kind == "guessable" else True


def _same(row: Row, chance: random.Random) -> None:
    """Nothing changes but the id."""


def _nearly_same(row: Row, chance: random.Random) -> None:
    """Other case, white space and punctuation, and the picture scaled and saved anew."""
    text = row["problem"].removeprefix(MARKER)
    text = chance.choice((text.upper(), f"  {text} ", text.replace("?", " ?"), text.rstrip("?.") + "."))
    row["problem"] = (MARKER if row["images"] else "") + text
    _save_again(row, chance)


def _leak(row: Row, chance: random.Random) -> None:
    if chance.random() < 0.5:
        _save_again(row, chance)


def _save_again(row: Row, chance: random.Random) -> None:
    for image in row["images"]:
        opened = Image.open(io.BytesIO(image["bytes"])).convert("RGB")
        factor = chance.choice((0.75, 1.0, 1.25))
        target = io.BytesIO()
        size = (round(opened.width * factor), round(opened.height * factor))
        opened.resize(size).save(target, "JPEG", quality=chance.choice((75, 90)))
        image["bytes"] = target.getvalue()


def _tear(row: Row, chance: random.Random) -> None:
    data = row["images"][0]["bytes"]
    row["images"][0]["bytes"] = data[: int(len(data) * chance.uniform(0.1, 0.8))]


def _blank(row: Row, chance: random.Random) -> None:
    size = Image.open(io.BytesIO(row["images"][0]["bytes"])).size
    level = chance.randint(0, 252)
    target = io.BytesIO()
    noise = bytes(level + chance.randint(0, 3) for _ in range(3 * size[0] * size[1]))
    Image.frombytes("RGB", size, noise).save(target, "PNG")
    row["images"][0]["bytes"] = target.getvalue()


def _spoil(row: Row, chance: random.Random) -> None:
    row["answer"] = [NOT_A_GOLD[row["answer_type"]]]


def _err(row: Row, chance: random.Random) -> None:
    """Another answer of the right kind."""
    gold = row["answer"][0]
    others = "ABCD" if row["answer_type"] == "multiple-choice" else [str(int(float(gold)) + step) for step in (1, 2)]
    row["answer"] = [chance.choice([other for other in others if other != gold])]


def _tell(row: Row, chance: random.Random) -> None:
    """The question gives its answer away."""
    row["problem"] += f" (The object stands {row['options'][ord(row['answer'][0]) - 65][3:]} of the other one.)"


def _unknown_type(row: Row, chance: random.Random) -> None:
    row["answer_type"] = chance.choice(("essay", "multiple choice", "Number"))


_MAKERS: dict[PlantKind, Callable[[Row, random.Random], None]] = {
    "exact_duplicate": _same,
    "near_duplicate": _nearly_same,
    "conflicting_answers": _err,
    "leaked": _leak,
    "broken_image": _tear,
    "blank_image": _blank,
    "bad_gold": _spoil,
    "wrong_gold": _err,
    "guessable": _tell,
    "bad_row": _unknown_type,
}
