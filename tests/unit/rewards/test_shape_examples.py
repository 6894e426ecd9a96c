"""Verifiers of structured answers: their own examples, and input that must neither raise nor hang."""

from __future__ import annotations

import importlib

import pytest

from rewards import registry, score

NAMES = ("bbox", "counting", "e-smiles", "format", "html-code", "point-in-box", "reaction", "smiles", "svg-code")
HOSTILE = (
    "",
    " ",
    "\0",
    "\ud800",
    "nan",
    "[" * 50_000,
    "{" * 50_000,
    '{"a":' * 50_000,
    "(" * 50_000 + ")" * 50_000,
    "<" * 100_000,
    "<svg>" * 50_000,
    "<box>" * 50_000,
    "```" * 50_000,
    "```html\n" * 20_000,
    "\\boxed{" * 20_000,
    "9" * 100_000,
    "-" * 100_000,
    "1e999999999",
    "[1,2,3," + "4" * 10_000 + "]",
    "x=" * 50_000,
    " " * 500_000,
    "C" * 100_000,
    "C1" * 50_000,
    "[C@@H]" * 20_000,
    "*" + "(*)" * 300,
    ">" * 100_000,
    "C>>" * 30_000,
    "[:" * 50_000,
    "twenty " * 20_000,
    "a" * 1_000_000,
    "é\u0301" * 50_000,
)


def examples(name: str) -> list[tuple[str, str, object, float]]:
    module = importlib.import_module(registry.resolve(name).partition(":")[0])
    rows: list[tuple[str, str, object, float]] = []
    for example in module.EXAMPLES:
        rows += [(text, example.answer, example.sample, 1.0) for text in example.right]
        rows += [(text, example.answer, example.sample, 0.0) for text in example.wrong]
    return rows


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", NAMES)
def test_right_examples_get_one_and_wrong_ones_nothing(name: str) -> None:
    rows = examples(name)
    assert {value for *_, value in rows} == {0.0, 1.0}
    for text, answer, sample, value in rows:
        result = score(text, answer, name, sample=sample)  # type: ignore[arg-type]
        assert result.value == value, f"{text[:200]!r}: {result}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", NAMES)
def test_hostile_answers_score_and_hostile_golds_are_refused(name: str) -> None:
    gold = examples(name)[0][1]
    for text in HOSTILE:
        for completion in (text, f"<answer>{text}</answer>", f"<think>so</think><answer>{text}</answer>"):
            result = score(completion, gold, name)
            assert result.status in ("ok", "no_answer"), f"{text[:40]!r}: {result}"
            assert result.value is not None
            assert 0.0 <= result.value <= 1.0
        assert score("<answer>1</answer>", text, name).status in ("ok", "invalid_gold"), f"{text[:40]!r}"
