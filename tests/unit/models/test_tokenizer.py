"""The small tokenizer: what stays single, and that any text comes back."""

from __future__ import annotations

from typing import Any

import pytest

from rl.models.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    texts = ["Give the box of the red disc. 250,500 OCCCO Clc1ccc(Br)cc1 <answer>Oc1cccs1</answer>"] * 50
    return train_tokenizer(texts, 400)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("OCCCO", ["O", "C", "C", "C", "O"]),
        ("Clc1ccc(Br)cc1", ["Cl", "c", "1", "c", "c", "c", "(", "Br", ")", "c", "c", "1"]),
        ("Oc1cccs1", ["O", "c", "1", "c", "c", "c", "s", "1"]),
        ("250", ["2", "5", "0"]),
        ("<answer>2</answer>", ["<answer>", "2", "</answer>"]),
        ("Give", ["Give"]),
    ],
)
def test_atoms_digits_and_tags_are_single_and_words_are_whole(tokenizer: Any, text: str, tokens: list[str]) -> None:
    assert tokenizer.tokenize(text) == tokens


def test_text_never_seen_comes_back(tokenizer: Any) -> None:
    text = "Überraschung: 3 × 4 = 12\n*CC(N)C<sep><a>0:R[1]</a>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
