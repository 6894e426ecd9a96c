"""The verdict in a judge's reply. What is not plainly one verdict is none: it is never guessed from the text around it.

A reply may have reasoning up to `</think>` before it and a code fence around it. The rest must be one JSON object, and
nothing else: a judge that quotes the answer it looks at could quote a forged verdict with it.
"""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

MAX_CHARS = 100_000
MAX_ANSWER_CHARS = 4_000


class BadVerdict(ValueError):
    """A reply that holds no verdict."""


def read_score(text: str, levels: int) -> int:
    """The integer under `score`, in 0..levels.

    Raises:
        BadVerdict: no such object, no such key, not an integer, out of range.
    """
    score = _read_object(text).get("score")
    if isinstance(score, float) and score.is_integer():
        score = int(score)
    if isinstance(score, bool) or not isinstance(score, int):
        raise BadVerdict(f"score is {score!r:.40}, not an integer")
    if not 0 <= score <= levels:
        raise BadVerdict(f"score {score!r:.40} is not in 0..{levels}")
    return score


def read_answer(text: str, allowed: Set[str] = frozenset()) -> str:
    """The text under `answer`, one of `allowed` unless that is empty.

    Raises:
        BadVerdict: no such object, no such key, not a short text, not one of `allowed`.
    """
    answer = _read_object(text).get("answer")
    if not isinstance(answer, str) or not answer.strip() or len(answer) > MAX_ANSWER_CHARS:
        raise BadVerdict(f"answer is {answer!r:.40}, not a short text")
    if allowed and answer not in allowed:
        raise BadVerdict(f"answer {answer!r:.40} is none of the options")
    return answer.strip()


def _read_object(text: str) -> dict[str, Any]:
    if len(text) > MAX_CHARS:
        raise BadVerdict(f"the reply has {len(text)} characters")
    body = text.rpartition("</think>")[2].strip()
    head, line_end, rest = body.partition("\n")
    if line_end and head.strip().lower() in ("```", "```json") and rest.endswith("```"):
        body = rest[:-3].strip()
    if not body.startswith("{"):
        raise BadVerdict(f"the reply {body!r:.60} is not one JSON object")
    try:
        value: dict[str, Any] = json.loads(body, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise BadVerdict(f"the reply {body!r:.60} is not one JSON object ({exc!s:.60})") from exc
    return value


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is given twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
