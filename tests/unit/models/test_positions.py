"""M-RoPE positions of prompts with images, worked by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rl.errors import DataError
from rl.models.encoder import PromptEncoder
from rl.models.policy import extend_positions, prompt_positions

IMAGE, START, END = 5, 6, 7


@pytest.fixture(scope="module")
def model() -> Any:
    """Without weights: positions depend on the config alone."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 16,
            "hidden_size": 24,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 24,
        },
        vision_config={"depth": 1, "hidden_size": 24, "intermediate_size": 24, "num_heads": 1, "out_hidden_size": 24},
        image_token_id=IMAGE,
        video_token_id=8,
        vision_start_token_id=START,
        vision_end_token_id=END,
    )
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(config)


def test_image_tokens_count_rows_and_columns_and_text_goes_on_after_the_larger_side(model: Any) -> None:
    ids = np.array([1, START, *[IMAGE] * 6, END, 2])
    grid = torch.tensor([1, 4, 6])  # patches; merged 2 x 2 they make 2 rows of 3 tokens
    positions = prompt_positions(model, ids, [grid])
    assert positions.tolist() == [
        [0, 1, 2, 2, 2, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 2, 3, 3, 3, 5, 6],
        [0, 1, 2, 3, 4, 2, 3, 4, 5, 6],
    ]
    assert extend_positions(positions, 2)[:, -3:].tolist() == [[6, 7, 8]] * 3


def test_a_response_follows_the_largest_position_of_an_image_that_ends_the_prompt() -> None:
    positions = np.array([[0, 1, 1], [0, 1, 1], [0, 1, 2]])
    assert extend_positions(positions, 2).tolist() == [[0, 1, 1, 3, 4], [0, 1, 1, 3, 4], [0, 1, 2, 3, 4]]


def test_text_counts_up_in_all_three_rows(model: Any) -> None:
    text_only = SimpleNamespace(config=SimpleNamespace())
    for each in (model, text_only):
        assert prompt_positions(each, np.array([1, 2, 3]), []).tolist() == [[0, 1, 2]] * 3


def test_placeholders_that_do_not_fit_the_images_are_refused(model: Any) -> None:
    with pytest.raises(DataError, match=r"holds 3 image tokens and its 1 image\(s\) make 6"):
        prompt_positions(model, np.array([START, IMAGE, IMAGE, IMAGE, END]), [torch.tensor([1, 4, 6])])


def test_patches_of_each_image_of_an_expanded_prompt():
    encoder = PromptEncoder.__new__(PromptEncoder)
    encoder.has_vision = True
    encoder.config = SimpleNamespace(image_token_id=IMAGE, vision_config=SimpleNamespace(spatial_merge_size=2))
    # Two visual tokens of 2x2 patches each, then one.
    assert encoder.image_patches(np.array([IMAGE, IMAGE, END, START, IMAGE, 9])) == (8, 4)
    assert encoder.image_patches(np.array([9, 9])) == ()
