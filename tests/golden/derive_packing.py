"""Derives the golden vectors of packing plans: what no plan can beat, found by trying all of them.

    python -m tests.golden.derive_packing     # rewrites packing.json

Nothing of the project is imported. Costs are exact fractions. A plan is any way of putting the sequences into bins, and
the bins into rounds of one bin per rank; there are few enough in these cases to look at each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any

Case = dict[str, Any]
Bin = tuple[int, ...]


def partitions(lengths: list[int], budget: int) -> Iterator[list[Bin]]:
    """Every way to fill bins; a sequence over the budget is alone in one."""

    def grow(i: int, bins: list[Bin]) -> Iterator[list[Bin]]:
        if i == len(lengths):
            yield bins
            return
        for b, members in enumerate(bins):
            if sum(lengths[j] for j in members) + lengths[i] <= budget:
                yield from grow(i + 1, [*bins[:b], (*members, i), *bins[b + 1 :]])
        yield from grow(i + 1, [*bins, (i,)])

    return grow(0, [])


def cost_of(members: Bin, case: Case) -> Fraction:
    """Tokens, squared tokens of each sequence, patches and squared patches of each distinct image."""
    attention, patch, patch_attention = (
        Fraction(str(case["cost"][name])) for name in ("attention", "patch", "patch_attention")
    )
    images = {key: patches for i in members for key, patches in case["images"][i]}
    tokens = sum(case["lengths"][i] + attention * case["lengths"][i] ** 2 for i in members)
    return tokens + sum((patch * n + patch_attention * n**2 for n in images.values()), Fraction(0))


def rounds(costs: list[Fraction], ranks: int) -> Fraction:
    """Least time of bins in rounds of `ranks`: each round lasts as long as its costliest bin."""
    if len(costs) <= ranks:
        return max(costs, default=Fraction(0))
    first, rest = costs[0], costs[1:]
    short = len(costs) % ranks
    sizes = {ranks, short} - {0}
    best = []
    for size in sizes:
        for others in combinations(range(len(rest)), size - 1):
            left = [value for i, value in enumerate(rest) if i not in others]
            best.append(max([first, *(rest[i] for i in others)]) + rounds(left, ranks))
    return min(best)


def plan(
    name: str,
    why: str,
    lengths: list[int],
    budget: int,
    ranks: int = 1,
    images: list[list[tuple[str, int]]] | None = None,
    attention: float = 0.0,
    patch: float = 0.0,
    patch_attention: float = 0.0,
) -> Case:
    cost = {"attention": attention, "patch": patch, "patch_attention": patch_attention}
    case: Case = {
        "name": name,
        "derivation": [why],
        "lengths": lengths,
        "images": [[list(image) for image in shown] for shown in images or [[] for _ in lengths]],
        "budget": budget,
        "ranks": ranks,
        "cost": cost,
    }
    everything = list(partitions(lengths, budget))
    fewest = min(len(bins) for bins in everything)
    bound = ceil(Fraction(sum(min(length, budget) for length in lengths), budget))
    count = min(ceil(Fraction(fewest, ranks)) * ranks, len(lengths))
    times = [rounds([cost_of(members, case) for members in bins], ranks) for bins in everything if len(bins) == count]
    case["derivation"] += [
        f"{sum(lengths)} tokens need at least {bound} bins of {budget}; of {len(everything)} ways to fill bins the "
        f"best takes {fewest}.",
        f"With {count} bins for {ranks} rank(s) the best of {len(times)} ways takes {min(times)}.",
    ]
    case["expected"] = {
        "fewest_bins": fewest,
        "own_bin": [i for i, length in enumerate(lengths) if length > budget],
        "bins": count,
        "least_time": float(min(times)),
    }
    return case


A, B = [("a", 16)], [("b", 16)]
CASES = [
    plan("all_in_one", "They fit together.", [3, 5, 2], 10),
    plan("exact_fit", "Pairs that fill a bin: 7 + 3, 6 + 4, 5 + 5.", [3, 5, 7, 4, 5, 6], 10),
    plan("no_two_together", "Every two are over the budget.", [6, 7, 8], 10),
    plan("own_bin", "One is over the budget and stands alone, with room beside it for none.", [3, 50, 3, 1], 7),
    plan(
        "three_to_a_bin",
        "18 tokens in two bins of 9: 4 + 3 + 2 each, and no other way.",
        [4, 4, 3, 3, 2, 2],
        9,
    ),
    plan("as_many_bins_for_each_rank", "Three full bins would leave one of two ranks waiting.", [5] * 6, 10, ranks=2),
    plan("fewer_sequences_than_that", "Three bins of one sequence for two ranks.", [9, 8, 7], 10, ranks=2),
    plan("like_costs_at_once", "Bins of one: 9 with 8, 7 with 6.", [6, 9, 8, 7], 9, ranks=2),
    plan(
        "attention",
        "By tokens 8 and 4 + 4 are alike; with the square of the length the 8 costs 72 and 4 + 4 only 40.",
        [8, 4, 4, 4],
        12,
        ranks=2,
        attention=1.0,
    ),
    plan(
        "images_together",
        "An image costs 24; sequences of one image share it in a bin, apart they pay it twice.",
        [5, 5, 5, 5],
        10,
        ranks=2,
        images=[[("a", 4)], [("b", 4)], [("a", 4)], [("b", 4)]],
        patch=2.0,
        patch_attention=1.0,
    ),
    plan(
        "image_against_text",
        "A short sequence with an image weighs as much as a long one without.",
        [10, 2, 10, 2],
        16,
        ranks=2,
        images=[[], A, [], B],
        patch=0.5,
    ),
    plan(
        "ragged",
        "A long tail of lengths over two ranks.",
        [30, 4, 11, 7, 19, 3, 5, 9],
        32,
        ranks=2,
        attention=0.01,
    ),
]


def contents() -> dict[str, Case]:
    """File name -> content."""
    source = "bin packing: Johnson 1973; first-fit decreasing within 11/9 OPT + 6/9: Dosa 2007"
    return {"packing": {"source": source, "tolerance": 1e-06, "time_within": 4 / 3, "cases": CASES}}


if __name__ == "__main__":
    for file, content in contents().items():
        (Path(__file__).parent / f"{file}.json").write_text(json.dumps(content, indent=1) + "\n")
