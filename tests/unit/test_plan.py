"""Groups over ranks and updates: balance and normaliser worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl.batch.packing import CostModel
from rl.batch.plan import UpdateShare, plan_updates
from tests.unit.groups import make_group


def of_tokens(uid: int, tokens: int, **kwargs):
    """A group of two completions with `tokens` tokens, its prompt of 10 counted for each."""
    return make_group(uid, lengths=(tokens - 20 - 1, 1), prompt_length=10, **kwargs)


def payloads(share: UpdateShare) -> list[str]:
    return [group.payload for group in share.groups]


def test_the_longest_first_to_the_lightest_rank():
    # 90 to rank 0, 70 to rank 1, 60 to rank 1 (now 130), 50 to rank 0 (now 140), 40 to rank 1.
    groups = [of_tokens(uid, tokens) for uid, tokens in enumerate((50, 90, 40, 70, 60))]
    shares = plan_updates(groups, [(1.0, -1.0)] * 5, ranks=2, updates=1)
    assert [payloads(rank[0]) for rank in shares] == [
        ["payload-0", "payload-1"],
        ["payload-2", "payload-3", "payload-4"],
    ]


def test_the_prompt_counts_once_for_each_completion():
    # 2 * 100 + 2 = 202 tokens against 2 * 1 + 100 = 102 and 2 * 1 + 96 = 98: the long prompt is alone.
    groups = [
        make_group(0, lengths=(50, 50), prompt_length=1),
        make_group(1, lengths=(1, 1), prompt_length=100),
        make_group(2, lengths=(48, 48), prompt_length=1),
    ]
    shares = plan_updates(groups, [(1.0, -1.0)] * 3, ranks=2, updates=1)
    assert [payloads(rank[0]) for rank in shares] == [["payload-1"], ["payload-0", "payload-2"]]


def test_work_is_counted_and_not_tokens_alone():
    # Groups of one completion of 8, 4, 4 and 4 tokens. With 1 per squared token they cost 72, 20, 20 and 20, so the
    # first is alone; by tokens each rank would have two.
    groups = [make_group(uid, lengths=(n - 1, 1), prompt_length=1) for uid, n in enumerate((8, 4, 4, 4))]
    only_first = [(1.0, None)] * 4
    by_tokens = plan_updates(groups, only_first, ranks=2, updates=1)
    assert [len(rank[0].groups) for rank in by_tokens] == [2, 2]
    squared = plan_updates(groups, only_first, 2, 1, CostModel(attention=1.0))
    assert [payloads(rank[0]) for rank in squared] == [["payload-0"], ["payload-1", "payload-2", "payload-3"]]


def test_images_count_once_for_each_group():
    # 10 tokens each; 8 patches at 2 make the first cost 26, which two others outweigh together only (20, then 30).
    groups = [make_group(uid, lengths=(4, 4), prompt_length=1) for uid in range(4)]
    groups[2] = replace(groups[2], meta=replace(groups[2].meta, image_patches=(5, 3)))
    shares = plan_updates(groups, [(1.0, -1.0)] * 4, 2, 1, CostModel(patch=2.0))
    assert [payloads(rank[0]) for rank in shares] == [["payload-2"], ["payload-0", "payload-1", "payload-3"]]


def test_equal_groups_are_placed_in_turn():
    groups = [of_tokens(uid, 50) for uid in range(4)]
    shares = plan_updates(groups, [(1.0, -1.0)] * 4, ranks=2, updates=1)
    assert [payloads(rank[0]) for rank in shares] == [["payload-0", "payload-2"], ["payload-1", "payload-3"]]


def test_updates_take_the_groups_in_order():
    groups = [of_tokens(uid, tokens) for uid, tokens in enumerate((30, 90, 90, 30))]
    (rank,) = plan_updates(groups, [(1.0, -1.0)] * 4, ranks=1, updates=2)
    assert [payloads(share) for share in rank] == [["payload-0", "payload-1"], ["payload-2", "payload-3"]]


def test_the_normaliser_counts_sequences_with_an_advantage_over_all_ranks():
    groups = [make_group(uid, rewards=(1.0, None, 0.0)) for uid in range(4)]
    advantages = [(1.0, None, -1.0), (None, None, 0.5), (0.1, 0.2, 0.3), (1.0, None, -1.0)]
    shares = plan_updates(groups, advantages, ranks=2, updates=2)
    assert [[share.sequences for share in rank] for rank in shares] == [[3, 5], [3, 5]]
    given = {group.payload: group.advantages for rank in shares for share in rank for group in share.groups}
    assert given == {f"payload-{uid}": advantages[uid] for uid in range(4)}


def test_more_ranks_than_groups_leaves_a_rank_empty():
    shares = plan_updates([make_group(0)], [(1.0, -1.0)], ranks=2, updates=1)
    assert [len(rank[0].groups) for rank in shares] == [1, 0]
    assert [rank[0].sequences for rank in shares] == [2, 2]


def test_groups_must_divide_into_updates():
    with pytest.raises(AssertionError):
        plan_updates([make_group(uid) for uid in range(3)], [(1.0, -1.0)] * 3, ranks=1, updates=2)
