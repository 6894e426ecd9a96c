"""Which sequences share a micro-batch, and which rank gets it: arithmetic on lengths and costs, no token data.

A bin is one packed row: at most `budget` tokens of whole sequences. First-fit decreasing says how many bins there are,
at most 11/9 OPT + 6/9 (Dosa 2007) and on lengths as completions have them within one of the lower bound
(docs/decisions/0010 compares). That many bins, or fewer if it works out, are filled by cost, each sequence to the
lightest bin with room, because ranks go through their bins in step and wait for the slowest.

Equal inputs give equal plans on every rank: ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CostModel:
    """Work of forward and backward, in units of one token's matrix products in the language model.

    Attention is quadratic within a sequence, and in the vision tower within an image.
    """

    attention: float = 0.0
    """Per squared token of a sequence."""
    patch: float = 0.0
    """Per patch of an image."""
    patch_attention: float = 0.0
    """Per squared patch of an image."""

    def of_tokens(self, length: int) -> float:
        return length + self.attention * length**2

    def of_image(self, patches: int) -> float:
        return self.patch * patches + self.patch_attention * patches**2


@dataclass(frozen=True, slots=True)
class Item:
    """A sequence as the plan sees it."""

    length: int
    """Tokens, visual tokens among them."""
    images: tuple[tuple[str, int], ...] = ()
    """Key and patches of each image. Sequences of one bin share an image: the tower sees it once."""


class _Bin:
    def __init__(self, budget: int) -> None:
        self.members: list[int] = []
        self.room = budget
        self.cost = 0.0
        self.images: set[str] = set()

    def fits(self, item: Item) -> bool:
        return item.length <= self.room or not self.members

    def cost_with(self, item: Item, cost: CostModel) -> float:
        """Cost of the bin if `item` joined it: images that it shows already are free."""
        new = {key: patches for key, patches in item.images if key not in self.images}
        return self.cost + cost.of_tokens(item.length) + sum(map(cost.of_image, new.values()))

    def add(self, index: int, item: Item, cost: CostModel) -> None:
        self.cost = self.cost_with(item, cost)
        self.members.append(index)
        self.room -= item.length
        self.images |= {key for key, _ in item.images}


def pack(items: Sequence[Item], budget: int, cost: CostModel, at_least: int = 1) -> list[list[int]]:
    """Bins of item indices (ascending), the costliest bin first.

    Args:
        budget: tokens of a bin. A longer sequence has a bin of its own: none is ever split.
        at_least: bins to make where there are as many items; ranks with less work make as many as the others.
    """
    order = sorted(range(len(items)), key=lambda i: (-items[i].length, i))
    bins = _fewest(items, order, budget, cost)
    count = min(at_least, len(items))
    if count > len(bins):
        bins = _lightest_bin(items, order, budget, cost, count) or _split(bins, items, budget, cost, count)
    bins.sort(key=lambda each: (-each.cost, min(each.members)))
    return [sorted(each.members) for each in bins]


def pack_ranks(items: Sequence[Item], budget: int, cost: CostModel, ranks: int) -> list[list[list[int]]]:
    """Plan as `[rank][bin]`: every rank has as many bins unless there are fewer items than that takes.

    Bin i of all ranks runs at the same time, so bins of like cost are dealt out together, in turns from either end.
    """
    fewest = len(pack(items, budget, cost))
    bins = pack(items, budget, cost, at_least=-(-fewest // ranks) * ranks)
    plan: list[list[list[int]]] = [[] for _ in range(ranks)]
    for start in range(0, len(bins), ranks):
        forward = (start // ranks) % 2 == 0
        for rank, members in zip(range(ranks) if forward else reversed(range(ranks)), bins[start:], strict=False):
            plan[rank].append(members)
    return plan


def bin_cost(items: Sequence[Item], members: Sequence[int], cost: CostModel) -> float:
    """Cost of one bin, its distinct images counted once."""
    images = {key: patches for i in members for key, patches in items[i].images}
    tokens = sum(cost.of_tokens(items[i].length) for i in members)
    return tokens + sum(map(cost.of_image, images.values()))


def _fewest(items: Sequence[Item], order: Sequence[int], budget: int, cost: CostModel) -> list[_Bin]:
    """As few bins as are found, balanced where that many can be."""
    first_fit = _first_fit(items, order, budget, cost)
    tokens = sum(min(item.length, budget) for item in items)
    bound = max(-(-tokens // budget), sum(2 * item.length > budget for item in items))
    for count in range(bound, len(first_fit) + 1):
        bins = _lightest_bin(items, order, budget, cost, count)
        if bins is not None:
            return bins
    return first_fit


def _first_fit(items: Sequence[Item], order: Sequence[int], budget: int, cost: CostModel) -> list[_Bin]:
    bins: list[_Bin] = []
    for i in order:
        target = next((each for each in bins if each.fits(items[i])), None)
        if target is None:
            target = _Bin(budget)
            bins.append(target)
        target.add(i, items[i], cost)
    return bins


def _lightest_bin(
    items: Sequence[Item], order: Sequence[int], budget: int, cost: CostModel, count: int
) -> list[_Bin] | None:
    """`count` bins of balanced cost, none of them empty; None where this way of filling them runs out of room."""
    bins = [_Bin(budget) for _ in range(count)]
    empty = count
    for placed, i in enumerate(order):
        # A shared image draws its sequences together; the last ones must go where there is nothing yet.
        must_open = len(order) - placed <= empty
        open_to = [each for each in bins if (not each.members if must_open else each.fits(items[i]))]
        if not open_to:
            return None
        target = min(open_to, key=lambda each: each.cost_with(items[i], cost) if items[i].images else each.cost)
        empty -= not target.members
        target.add(i, items[i], cost)
    return bins


def _split(bins: list[_Bin], items: Sequence[Item], budget: int, cost: CostModel, count: int) -> list[_Bin]:
    """`bins`, the costliest cut in two until there are `count`."""
    while len(bins) < count:
        whole = max((each for each in bins if len(each.members) > 1), key=lambda each: each.cost)
        bins.remove(whole)
        parts = _lightest_bin(items, whole.members, budget, cost, 2)
        assert parts is not None, "two bins hold what one held"
        bins += parts
    return bins
