"""Whether what a program printed, or a function returned, is what was expected. Runs outside the sandbox."""

from __future__ import annotations

import math
from typing import Any

RELATIVE, ABSOLUTE = 1e-6, 1e-9


def same_output(printed: str, expected: str) -> bool:
    """Equal but for white space at line ends and empty lines at the end; expected decimals up to 1e-6, relative.

    An expected whole number, a word, and the number of words on a line must be met exactly.
    """
    got, wanted = _lines(printed), _lines(expected)
    if got == wanted:
        return True
    if len(got) != len(wanted):
        return False
    return all(one == other or _same_words(one.split(), other.split()) for one, other in zip(got, wanted, strict=True))


def same_value(returned: Any, expected: Any) -> bool:
    """`expected` comes from JSON: a tuple counts as a list, a number as a key as its text.

    Booleans are not numbers here, and None is nothing else.
    """
    if isinstance(expected, bool) or expected is None:
        return returned is expected
    if isinstance(expected, (int, float)):
        return not isinstance(returned, bool) and isinstance(returned, (int, float)) and _close(returned, expected)
    if isinstance(expected, str):
        return isinstance(returned, str) and returned == expected
    if isinstance(expected, list):
        if not isinstance(returned, (list, tuple)) or len(returned) != len(expected):
            return False
        return all(same_value(one, other) for one, other in zip(returned, expected, strict=True))
    if isinstance(expected, dict) and isinstance(returned, dict):
        by_text = {_key(key): value for key, value in returned.items()}
        if len(by_text) != len(returned) or by_text.keys() != expected.keys():
            return False
        return all(same_value(by_text[key], value) for key, value in expected.items())
    return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _same_words(got: list[str], wanted: list[str]) -> bool:
    return len(got) == len(wanted) and all(map(_same_word, got, wanted))


def _same_word(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    if len(got) > 40 or len(wanted) > 40 or not any(char in wanted for char in ".eE"):
        return False
    number, target = _number(got), _number(wanted)
    return number is not None and target is not None and _close(number, target)


def _number(word: str) -> float | None:
    if not all(char in "0123456789.eE+-" for char in word):
        return None  # float() also takes inf, nan and 1_000
    try:
        return float(word)
    except ValueError:
        return None


def _close(got: float, wanted: float) -> bool:
    if isinstance(got, int) and isinstance(wanted, int):
        return got == wanted
    try:
        return got == wanted or math.isclose(got, wanted, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    except OverflowError:  # an integer beyond every float
        return False


def _key(key: Any) -> str:
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    return str(key)
