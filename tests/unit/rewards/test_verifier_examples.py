"""The examples that the text and number verifiers list of themselves: right ones get 1, wrong ones 0."""

from __future__ import annotations

import importlib

import pytest

from rewards import registry, score
from rewards.base import Example

TYPES = ("boolean", "counting", "math-expressions", "multiple-choice", "number", "ocrtext", "string")


def examples(answer_type: str) -> tuple[Example, ...]:
    found: tuple[Example, ...] = importlib.import_module(registry.VERIFIERS[answer_type].partition(":")[0]).EXAMPLES
    return found


@pytest.mark.parametrize("answer_type", TYPES)
def test_right_examples_get_one(answer_type: str) -> None:
    assert examples(answer_type)
    for example in examples(answer_type):
        for completion in example.right:
            result = score(completion, example.answer, answer_type, sample=example.sample)
            assert result.value == 1.0, (example.answer, completion, result)


@pytest.mark.parametrize("answer_type", TYPES)
def test_wrong_examples_get_zero(answer_type: str) -> None:
    for example in examples(answer_type):
        assert example.wrong
        for completion in example.wrong:
            result = score(completion, example.answer, answer_type, sample=example.sample)
            assert (result.value, result.status in ("ok", "no_answer")) == (0.0, True), (example.answer, completion)


def test_any_is_graded_as_string() -> None:
    assert registry.VERIFIERS["any"] == registry.VERIFIERS["string"]
