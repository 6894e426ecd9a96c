"""Rows for the plug-in of docs/rewards_plugins.md: which elements are in a formula, in any order.

    python examples/lists_data.py data

writes data/lists.jsonl and data/lists_eval.jsonl, whose answers the plug-in grades, and data/lists_sft.jsonl, from
which a small model learns to answer in tags. Up to one in three of its solutions names a wrong element, so that
something is left for the reward to teach.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

ELEMENTS = {
    "C": "carbon",
    "Cl": "chlorine",
    "Fe": "iron",
    "H": "hydrogen",
    "K": "potassium",
    "N": "nitrogen",
    "O": "oxygen",
    "S": "sulfur",
}
WRONG = 1 / 3
ROWS = {"lists": 512, "lists_eval": 64, "lists_sft": 4_000}


def row(rng: random.Random, name: str, *, solved: bool) -> dict[str, Any]:
    """One row; with `solved` it has a target response, right or not."""
    symbols = rng.sample(sorted(ELEMENTS), rng.choice((2, 3)))
    formula = "".join(symbol + rng.choice(("", "2", "3")) for symbol in symbols)
    names = [ELEMENTS[symbol] for symbol in symbols]
    made = {
        "id": name,
        "problem": f"Which elements are in {formula}?",
        "answer": [", ".join(names)],
        "problem_type": "science",
        "answer_type": "unordered-list",
        "source": "lists",
        "prompt_type": "normal",
    }
    if solved:
        rng.shuffle(names)
        if rng.random() < WRONG:
            names[rng.randrange(len(names))] = rng.choice(sorted(ELEMENTS.values()))
        made["solution"] = f"<answer>{', '.join(names)}</answer>"
    return made


def main(folder: Path) -> None:
    rng = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in ROWS.items():
        path = folder / f"{name}.jsonl"
        rows = [row(rng, f"{name}_{number}", solved=name == "lists_sft") for number in range(count)]
        path.write_text("".join(json.dumps(made) + "\n" for made in rows))
        print(f"{path}: {count} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "data"))
