"""Any task of reasoning-gym, graded by its dataset's own `score_answer`.

The row holds the dataset's name and entry as text in its column `reasoning_gym`, see `rewards.gym_entry`. Some of the
datasets evaluate answers as Python; what the policy wrote reaches those only where it can't be more than data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer
from rewards.gym_entry import COLUMN, GymEntry, loads
from rewards.names import unknown_name
from rewards.text import folded

MAX_CHARS = 20_000
MAX_EXPRESSION_CHARS = 1_000

_LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""They call `eval` on the answer, meant for lists of numbers or characters."""
_SUMS = frozenset({"countdown", "puzzle24"})
"""They give the answer to `sympy.parse_expr`, which evaluates it, meant for sums of numbers."""
_FORMULAS = frozenset({"intermediate_integration", "polynomial_multiplication", "simple_integration"})
"""Likewise, meant for formulas in one variable."""

_NOT_A_NUMBER = frozenset({"complex_arithmetic"})
"""They score the distance to the right number, and give NaN full marks."""
_BY_TEXT = frozenset({"game_of_life_halting"})
"""Their graders (in 0.1.25) accept any text; compared with the entry's answer instead."""

_NO_CALL = re.compile(r"[^(){}*=@`\\;:]*")
_SUM = re.compile(r"(?:[\d\s+\-/().]|\*(?!\s*\*))*")
_FORMULA = re.compile(r"(?:[A-Za-z]+(?![A-Za-z_\d])|[\d\s+\-/(),.]|\*(?!\*)|\*\*\s*(?:\d{1,3}(?!\d)|[A-Za-z(]))*")
_WORD = re.compile(r"[A-Za-z]+")
_FUNCTION_NAMES = """
sin cos tan cot sec csc asin acos atan acot sinh cosh tanh asinh acosh atanh exp log ln sqrt pi Abs
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_TOWER = re.compile(r"\*\*[-\s\d/(]*\*\*|(?:\)\s*\*\*.*){4}", re.DOTALL)
"""A power of a power of numbers, which can have any size."""
_DATASETS: dict[str, Any] = {}
"""By the text of name and config; what was made stays, because making one may load files."""
_MOST_DATASETS = 256


def _example_entry() -> str:
    question = "How many legs are there in total if you have 2 ants and 1 dog?"
    metadata = {"source_dataset": "leg_counting", "source_index": 0, "animals": {"ant": 2, "dog": 1}, "total_legs": 16}
    return GymEntry("leg_counting", {}, {"question": question, "answer": "16", "metadata": metadata}).dumps()


def _countdown_entry() -> str:
    metadata = {"source_dataset": "countdown", "source_index": 0, "numbers": [3, 4, 5], "target": 17}
    entry = {"question": "Reach 17 with 3, 4, 5.", "answer": "3*4 + 5", "metadata": metadata}
    return GymEntry("countdown", {}, entry).dumps()


EXAMPLES = (
    Example(
        "16",
        right=("<answer>16</answer>", r"<think>12 + 4</think>\boxed{16}"),
        wrong=("<answer>4</answer>", "<answer>sixteen legs or so</answer>", "<answer>16", "16"),
        sample={COLUMN: _example_entry()},
    ),
    Example("3*4 + 5", right=("<answer>5 + 4*3</answer>",), wrong=("no idea",), sample={COLUMN: _countdown_entry()}),
)


def warm_up() -> None:
    """Import the library, which takes a second."""
    import reasoning_gym  # noqa: F401


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """The dataset's score in [0, 1], partial credit included; the row's `answer` column is not looked at.

    An answer that the grader can't read is wrong; a grader that can't read its own answer either is an `error`.
    """
    try:
        item = loads(sample.get(COLUMN))
        dataset = _dataset(item)
    except (TypeError, ValueError, AssertionError) as exc:
        return failed("invalid_gold", f"{exc!s:.300}")
    detail = f"{item.dataset}: {shorten(prediction)!r}"
    own = item.entry["answer"]
    if item.dataset in _BY_TEXT:
        return graded(float(folded(prediction) == folded(str(own))), detail)
    # The dataset's own answer may be what no other answer should: an unsolved integral, for one.
    if prediction != own and not is_harmless(prediction, item.dataset):
        return graded(0.0, f"{detail} is too long, or more than the data that {item.dataset} takes")
    try:
        value = float(dataset.score_answer(prediction, dict(item.entry)))
    except MemoryError:
        raise
    except Exception as exc:
        return _blame(dataset, item, exc)
    if not math.isfinite(value):
        return failed("error", f"{item.dataset} scored {value}")
    return graded(min(max(value, 0.0), 1.0), detail)


verify = on_final_answer(grade)


def is_harmless(answer: str, dataset: str) -> bool:
    """False for an answer that a dataset must not see: too long, or code where it would be evaluated."""
    if len(answer) > MAX_CHARS:
        return False
    if dataset in _NOT_A_NUMBER:
        return re.search(r"nan|inf", answer, re.IGNORECASE) is None
    if dataset in _LITERALS:
        return _NO_CALL.fullmatch(answer) is not None
    if dataset in _SUMS:
        return len(answer) <= MAX_EXPRESSION_CHARS and _SUM.fullmatch(answer) is not None
    if dataset in _FORMULAS:
        if len(answer) > MAX_EXPRESSION_CHARS or _FORMULA.fullmatch(answer) is None:
            return False
        if _TOWER.search(answer):
            return False
        return all(len(word) == 1 or word in _FUNCTIONS for word in _WORD.findall(answer))
    return True


def _blame(dataset: Any, item: GymEntry, problem: Exception) -> RewardResult:
    """Whose fault it was that grading failed: the entry's, if its own answer (or none) can't be graded either."""
    detail = f"{item.dataset}: {type(problem).__name__}: {problem!s:.200}"
    own = item.entry["answer"]
    try:
        dataset.score_answer(own if isinstance(own, str) else "", dict(item.entry))
    except Exception:
        return failed("error", detail)
    return graded(0.0, f"the answer can't be read ({detail})")


def _dataset(item: GymEntry) -> Any:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if item.dataset not in DATASETS or item.dataset == "composite":
        raise ValueError(unknown_name("reasoning-gym dataset", item.dataset, set(DATASETS) - {"composite"}))
    key = GymEntry(item.dataset, item.config).dumps()
    if key not in _DATASETS:
        if len(_DATASETS) >= _MOST_DATASETS:
            _DATASETS.clear()
        # The seed only matters for making entries, and the default is a random one.
        _DATASETS[key] = reasoning_gym.create_dataset(item.dataset, **{**item.config, "seed": 0, "size": 1})
    return _DATASETS[key]
