"""Packing plans worked by hand, and what must hold of any plan."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl.batch.packing import CostModel, Item, bin_cost, pack, pack_ranks

LINEAR = CostModel()


def items(*lengths: int) -> list[Item]:
    return [Item(length) for length in lengths]


def test_first_fit_settles_how_many_bins_and_cost_how_they_are_filled():
    # First fit: 6+4, 5+3+2, so two bins of 10. The lightest of two: 6 | 5, then 4 to the 5 (9), 3 to the 6 (9); 2 has
    # no room any more (11), so the plan stays with first fit. Both bins cost 10: the one with item 0 is the first.
    assert pack(items(5, 3, 6, 2, 4), 10, LINEAR) == [[0, 1, 3], [2, 4]]
    # With 11 tokens a bin it has: 9 and 9, the tie to the first bin.
    assert pack(items(5, 3, 6, 2, 4), 11, LINEAR) == [[1, 2, 3], [0, 4]]


def test_a_sequence_over_the_budget_has_a_bin_of_its_own():
    assert pack(items(3, 50, 3), 6, LINEAR) == [[1], [0, 2]]
    assert pack([], 6, LINEAR) == []


def test_attention_counts_with_the_square_of_the_length():
    # By tokens 8 and 4+4 would weigh the same. With 1 per squared token 8 costs 72 and a 4 costs 20: the 8 is alone
    # (72 > 60) although it has room for a fourth 4.
    cost = CostModel(attention=1.0)
    assert cost.of_tokens(8) == 72
    plan = pack(items(4, 8, 4, 4), 12, cost)
    assert plan == [[1], [0, 2, 3]]
    assert [bin_cost(items(4, 8, 4, 4), members, cost) for members in plan] == [72, 60]


def test_sequences_of_one_image_stay_together_where_the_tower_costs_more_than_the_imbalance():
    # 4 patches at 2 and 16 squared ones at 1 make 24 an image. Lengths 5, 5, 5, 5 of images a, b, a, b in two bins:
    # 5 + 24 each, then the third costs 5 in the bin of its image (34) and 29 in the other (58).
    cost = CostModel(patch=2.0, patch_attention=1.0)
    assert cost.of_image(4) == 24
    shown = [Item(5, ((key, 4),)) for key in "abab"]
    assert pack(shown, 10, cost) == [[0, 2], [1, 3]]
    assert [bin_cost(shown, members, cost) for members in ([0, 2], [0, 1])] == [34, 58]


def test_more_bins_when_other_ranks_have_more():
    assert pack(items(5, 3, 4), 100, LINEAR) == [[0, 1, 2]]
    # 5 | 4, then 3 to the 4.
    assert pack(items(5, 3, 4), 100, LINEAR, at_least=2) == [[1, 2], [0]]
    assert pack(items(5, 3, 4), 100, LINEAR, at_least=9) == [[0], [2], [1]]


def test_ranks_get_bins_of_like_cost_at_the_same_time():
    # Six bins of one sequence each: 9 and 8 run first, then 7 and 6 the other way round, then 5 and 4.
    plan = pack_ranks(items(4, 9, 5, 8, 6, 7), 9, LINEAR, ranks=2)
    assert plan == [[[1], [4], [2]], [[3], [5], [0]]]


def test_the_number_of_bins_is_rounded_up_to_all_ranks():
    # Three bins of 10 would leave one of two ranks waiting: it is four.
    plan = pack_ranks(items(*[5] * 6), 10, LINEAR, ranks=2)
    assert [len(rank) for rank in plan] == [2, 2]
    # Too few sequences for that; the second round is dealt from the other end.
    assert pack_ranks(items(5, 5, 5), 5, LINEAR, ranks=2) == [[[0]], [[1], [2]]]


@pytest.mark.parametrize("seed", range(200))
def test_any_plan_is_whole_within_budget_even_and_the_same_again(seed):
    generator = np.random.default_rng(seed)
    count, budget, ranks = (int(generator.integers(*bounds)) for bounds in ((1, 40), (5, 200), (1, 5)))
    lengths = generator.integers(1, generator.integers(2, 250), count).tolist()
    given = [Item(n, ((f"image {i // 4}", 16),) if i % 8 < 4 else ()) for i, n in enumerate(lengths)]
    cost = CostModel(attention=1e-3, patch=0.3)
    plan = pack_ranks(given, budget, cost, ranks)
    bins = [members for rank in plan for members in rank]
    assert sorted(i for members in bins for i in members) == list(range(count))
    assert all(sum(lengths[i] for i in members) <= budget or len(members) == 1 for members in bins)
    fewest = len(pack(given, budget, cost))
    bound = math.ceil(sum(min(length, budget) for length in lengths) / budget)
    assert bound <= fewest <= count
    if count >= math.ceil(fewest / ranks) * ranks:
        assert {len(rank) for rank in plan} == {math.ceil(fewest / ranks)}
    assert plan == pack_ranks(given, budget, cost, ranks)
