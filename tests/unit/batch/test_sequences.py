"""Micro-batches: what `collate`, `concatenate` and `split_by_tokens` give, worked by hand."""

from __future__ import annotations

import numpy as np
import torch

from rl.batch.sequences import ImageTable, TrainingSample, collate, concatenate, split_by_tokens


def sample(ids: list[int], prompt: int, trained: list[bool], images: tuple[str, ...] = ()) -> TrainingSample:
    positions = np.broadcast_to(np.arange(len(ids)), (3, len(ids)))
    return TrainingSample(np.array(ids), prompt, positions, np.array(trained), images)


def test_collate_points_each_trained_token_at_the_position_that_predicts_it() -> None:
    samples = [
        sample([9], 1, []),  # not chosen
        sample([11, 12, 13, 14, 15], 3, [True, True]),
        sample([21, 22, 23, 24], 2, [True, False]),
    ]
    batch = collate(samples, [2, 1], pad_id=7, images=None)
    assert batch.input_ids.tolist() == [[21, 22, 23, 24, 7], [11, 12, 13, 14, 15]]
    assert batch.segments is None and batch.tokens == 9
    assert batch.position_ids[2].tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    # Row 0: only token 23 at position 2 is trained, predicted at 1. Row 1 begins at 5: 14 and 15 are predicted at 7, 8.
    assert batch.rows.tolist() == [1, 7, 8]
    assert batch.targets.tolist() == [23, 14, 15]
    assert batch.sequence.tolist() == [0, 1, 1]
    assert batch.index == (2, 1)
    assert batch.pixels is None


def test_a_packed_row_holds_the_same_tokens_without_padding() -> None:
    samples = [
        sample([9], 1, []),  # not chosen
        sample([11, 12, 13, 14, 15], 3, [True, True]),
        sample([21, 22, 23, 24], 2, [True, False]),
    ]
    batch = concatenate(samples, [2, 1], images=None)
    assert batch.input_ids.tolist() == [[21, 22, 23, 24, 11, 12, 13, 14, 15]]
    assert batch.position_ids[1].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert batch.segments is not None and batch.segments.lengths == (4, 5)
    assert batch.segments.bounds.tolist() == [0, 4, 9]
    # The second sequence begins at 4: its trained tokens stand at 7 and 8, predicted one before.
    assert batch.rows.tolist() == [1, 6, 7]
    assert batch.targets.tolist() == [23, 14, 15]
    assert batch.sequence.tolist() == [0, 1, 1]
    assert (batch.index, batch.tokens) == ((2, 1), 9)


def test_an_image_of_several_sequences_is_in_the_batch_once() -> None:
    images = ImageTable()
    for key, value, patches in (("a", 1.0, 4), ("b", 2.0, 8)):
        images.add(key, torch.full((patches, 6), value), torch.tensor([1, 2, patches // 2]))
    samples = [sample([1, 2], 1, [True], keys) for keys in (("b",), ("a", "b"), ())]
    for batch in (collate(samples, [0, 1, 2], 0, images), concatenate(samples, [0, 1, 2], images)):
        assert batch.pixels is not None
        assert batch.pixels.pixel_values[:, 0].tolist() == [2.0] * 8 + [1.0] * 4
        assert batch.pixels.grid_thw.tolist() == [[1, 2, 4], [1, 2, 2]]
        assert batch.pixels.occurrence == (0, 1, 0)


def test_split_counts_padded_tokens_and_puts_like_lengths_together() -> None:
    # By length: 10 (row 1), 6 (3), 5 (0), 4 (4), 2 (2). 10 + 6 would be padded to 20 > 12; 6 and 5 to 12; 4 and 2 to 8.
    assert list(split_by_tokens([5, 10, 2, 6, 4], 12)) == [[1], [0, 3], [2, 4]]


def test_a_sequence_over_the_budget_stands_alone() -> None:
    assert list(split_by_tokens([3, 50, 3], 6)) == [[1], [0, 2]]
    assert list(split_by_tokens([], 6)) == []
