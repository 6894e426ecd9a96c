"""reasoning-gym entries as text for a column of a row: JSON that keeps tuples, sets and keys that are no texts.

Some graders tell a tuple from a list, so that plain JSON would fail their own answers (`arc_agi`, `rearc`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COLUMN = "reasoning_gym"
"""The column of a row, and the key of `sample`, that holds the text."""
MAX_CHARS = 4_000_000

_PAIRS, _TUPLE, _SET = "__pairs__", "__tuple__", "__set__"
_MARKS = (_PAIRS, _TUPLE, _SET)


@dataclass(frozen=True, slots=True)
class GymEntry:
    """One entry of a dataset, with what is needed to grade an answer to it.

    Example:
        GymEntry("leg_counting", {}, {"question": "...", "answer": "12", "metadata": {...}})
    """

    dataset: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `reasoning_gym.create_dataset`, without `seed` and `size`."""
    entry: Mapping[str, Any] = field(default_factory=dict)
    """`question`, `answer` and `metadata`, as the dataset made them."""

    def dumps(self) -> str:
        """As text; raises TypeError for a value that can't be written."""
        value = {"dataset": self.dataset, "config": _plain(dict(self.config)), "entry": _plain(dict(self.entry))}
        return json.dumps(value, ensure_ascii=False)


def loads(text: object) -> GymEntry:
    """The entry in a text of `GymEntry.dumps`.

    Raises:
        ValueError: not such a text.
    """
    if not isinstance(text, str):
        raise ValueError(f"the row has no text under {COLUMN!r}, which names the dataset and holds its entry")
    if len(text) > MAX_CHARS:
        raise ValueError(f"{COLUMN} has {len(text)} characters, over {MAX_CHARS}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{COLUMN} is not JSON ({exc!s:.80})") from exc
    if not isinstance(value, dict) or not isinstance(value.get("dataset"), str):
        raise ValueError(f"{COLUMN} must be an object with dataset, config and entry")
    config, entry = _restored(value.get("config") or {}), _restored(value.get("entry"))
    if not isinstance(config, dict) or not isinstance(entry, dict) or not {"answer", "metadata"} <= set(entry):
        raise ValueError(f"{COLUMN} must hold config, a mapping, and entry, with question, answer and metadata")
    if entry["answer"] is not None and not isinstance(entry["answer"], str):
        raise ValueError(f"{COLUMN}: the entry's answer is a {type(entry['answer']).__name__}, not text or null")
    return GymEntry(value["dataset"], config, entry)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and not any(mark in value for mark in _MARKS):
            return {str(key): _plain(item) for key, item in value.items()}
        return {_PAIRS: [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {_SET: sorted((_plain(item) for item in value), key=repr)}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return str(value)  # a numpy text is one as well
    if hasattr(value, "tolist"):  # numpy arrays and scalars; its float64 is a Python float as well
        return _plain(value.tolist())
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise TypeError(f"a {type(value).__name__} can't be written into a row")


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (mark, inner), *_ = value.items()
        if mark == _TUPLE:
            return tuple(_restored(inner))
        if mark == _SET:
            return set(_restored(inner))
        if mark == _PAIRS:
            return {_restored(key): _restored(item) for key, item in inner}
    return {key: _restored(item) for key, item in value.items()}
