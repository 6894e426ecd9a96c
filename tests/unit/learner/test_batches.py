"""Cutting samples into micro-batches: layout, limits and what is said about them."""

from __future__ import annotations

import logging

import pytest
import torch

from rl.batch.sequences import ImageTable
from rl.config.learner import LearnerConfig
from rl.errors import DataError
from rl.learner.batches import MicroBatcher, in_step, shape_sums
from rl.models.cost import cost_model
from tests.unit.learner.tiny import group_samples, text_policy, text_samples, vision_policy

pytestmark = pytest.mark.usefixtures("one_rank")


def batcher(**config: int | bool | None) -> MicroBatcher:
    return MicroBatcher(LearnerConfig.model_validate(config), text_policy(), 0, torch.device("cpu"))


def test_packed_and_padded_hold_the_same_tokens():
    samples = text_samples(text_policy())  # 5, 7, 9, 11, 13, 10 and 12 tokens
    lengths = [sample.length for sample in samples]
    assert lengths == [5, 7, 9, 11, 13, 10, 12]
    packed = batcher(tokens_per_microbatch=34).of_own(samples, ImageTable())
    padded = batcher(tokens_per_microbatch=34, packing=False).of_own(samples, ImageTable())
    # 67 tokens in two rows of at most 34. Padded: 13 + 12 as 26, 11 + 10 + 9 as 33, 7 + 5 as 14.
    assert sorted(batch.tokens for batch in packed) == [33, 34]
    assert [tuple(batch.input_ids.shape) for batch in padded] == [(2, 13), (3, 11), (2, 7)]
    assert shape_sums(packed, 34) == {
        "batch/tokens": 67,
        "batch/positions": 67,
        "batch/micro_batches": 2,
        "batch/over_budget": 0,
    }
    assert shape_sums(padded, 34)["batch/positions"] == 26 + 33 + 14
    for batches in (packed, padded):
        assert sorted(i for batch in batches for i in batch.index) == list(range(7))


@pytest.mark.parametrize("packing", [True, False])
def test_a_sequence_over_the_budget_is_said_once_and_counted(packing, caplog):
    cutter = batcher(tokens_per_microbatch=12, packing=packing)
    with caplog.at_level(logging.WARNING):
        batches = cutter.of_own(text_samples(text_policy()), ImageTable())
        cutter.of_own(text_samples(text_policy()), ImageTable())
    (record,) = caplog.records
    assert "13 tokens is over learner.tokens_per_microbatch (12)" in record.getMessage()
    assert shape_sums(batches, 12)["batch/over_budget"] == 1
    assert [batch.index for batch in batches if batch.tokens > 12] == [(4,)]


def test_a_sequence_over_the_limit_is_an_error():
    cutter = batcher(max_sequence_tokens=12)
    with pytest.raises(DataError, match=r"13 tokens is over learner\.max_sequence_tokens \(12\)"):
        cutter.of_own(text_samples(text_policy()), ImageTable())
    with pytest.raises(DataError, match="max_sequence_tokens"):
        cutter.of_all(text_samples(text_policy()), ImageTable(), 0, 1)
    assert batcher(max_sequence_tokens=13).of_own(text_samples(text_policy()), ImageTable())


def test_an_image_of_several_completions_is_in_a_packed_row_once():
    policy = vision_policy()
    samples, images = group_samples(policy)
    cutter = MicroBatcher(LearnerConfig(), policy, 0, torch.device("cpu"))
    (batch,) = cutter.of_own(samples, images)
    assert batch.pixels is not None
    assert sorted(batch.pixels.grid_thw.prod(-1).tolist()) == [16, 32]
    assert len(batch.pixels.occurrence) == 3 * 2 + 2


def test_on_one_rank_every_forward_counts():
    batches = batcher(tokens_per_microbatch=20).of_own(text_samples(text_policy()), ImageTable())
    assert [(batch.index, counted) for batch, counted in in_step(batches)] == [(b.index, True) for b in batches]


def test_cost_is_counted_from_the_weights():
    # Per layer of the Llama: q and o 16x16 each, k and v 16x8 each, three of 16x24: 1920. Scores and values of two
    # heads of 8: 16 per pair of tokens each, half of L^2 pairs: 16 L^2.
    assert cost_model(text_policy().model).attention == pytest.approx(16 / 1920)
    cost = cost_model(vision_policy().model)
    # Qwen3-VL has the same layers. Per patch, a block of the tower: 16x48, 16x16, two of 16x24: 1792, twice; the patch
    # embedding 96x16; two mergers of 64x64 and 64x16 for every four patches: 2560. Scores and values: 2*16 per block.
    assert cost.attention == pytest.approx(16 / 1920)
    assert cost.patch == pytest.approx((2 * 1792 + 96 * 16 + 2560) / (2 * 1920))
    assert cost.patch_attention == pytest.approx(2 * 2 * 16 / (2 * 1920))
