"""Mathematical answers: a fast path for equal strings and plain numbers, then math-verify behind size caps.

math-verify's own time limits are signal alarms, which fail off the main thread; they are switched off, and the deadline
is the pool's. The caps here keep what is plainly too large to evaluate away from SymPy; they are no time limit.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from rewards import numbers
from rewards.base import RewardResult, failed, graded, shorten
from rewards.extract import on_final_answer, unbox
from rewards.text import bare

MAX_CHARS = 1_000
MAX_DEPTH = 30
MAX_DIGITS = 200
MAX_POWER_DIGITS = 5_000

_TOWER = re.compile(r"\d{1,30}(?:\s*[\^{}(]*\^[\s{(]*\d{1,30})+|\d{1,30}(?:[\s{(]*\*\*[\s{(]*\d{1,30})+")
_HUGE_FACTORIAL = re.compile(r"\d{4,}\s*!|!\s*[)}\]]*\s*!")
_HUGE_BINOMIAL = re.compile(r"\\d?t?binom\s*\{?\s*\d{5,}")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle|limits|quad|qquad|,|;|!|:)(?![A-Za-z])|[\s~]+|\\\s")
_DOLLARS = re.compile(r"\$+")
_LONG_WORD = re.compile(r"[A-Za-z]{41}")
_BARE_PI = re.compile(r"(?<![A-Za-z\\])pi(?![A-Za-z])")
_UNICODE = str.maketrans(
    {"−": "-", "×": r"\times ", "·": r"\cdot ", "÷": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "∞": r"\infty "}
    | {"∪": r"\cup ", "∩": r"\cap ", "√": r"\sqrt ", "π": r"\pi ", "²": "^2", "³": "^3", "°": r"^\circ "}
)
_LOOSE_DIGITS = re.compile(r"\d\s+\d")


def too_large(text: str) -> str | None:
    """Why an expression must not reach SymPy, or None. Takes time linear in the text."""
    if len(text) > MAX_CHARS:
        return f"{len(text)} characters, over {MAX_CHARS}"
    depth = deepest = 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        return f"brackets nested {deepest} deep, over {MAX_DEPTH}"
    if re.search(rf"\d{{{MAX_DIGITS + 1}}}", text):
        return f"a number of over {MAX_DIGITS} digits"
    if _LONG_WORD.search(text):
        return "a word of over 40 letters, which would be read as a product of variables"
    if _HUGE_FACTORIAL.search(text) or _HUGE_BINOMIAL.search(text):
        return "a factorial or binomial too large to evaluate"
    if any(_tower_digits(tower.group()) > MAX_POWER_DIGITS for tower in _TOWER.finditer(text)):
        return f"a power of over {MAX_POWER_DIGITS} digits"
    return None


def _tower_digits(tower: str) -> float:
    """Decimal digits of a^b^c..., read from the right; infinite where even that does not fit a float."""
    parts = [float(part) for part in re.findall(r"\d+", tower)]
    value = parts[-1]
    digits = math.log10(value) if value > 1 else 0.0
    for base in reversed(parts[:-1]):
        digits = value * math.log10(base) if base > 1 else 0.0
        if digits > 300:
            return math.inf if base is not parts[0] else digits
        value = 10.0**digits
    return digits


def _flat(text: str) -> str:
    flat = _LAYOUT.sub("", bare(text)).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("−", "-")
    return flat.rstrip(".")


def _clean(text: str) -> str | None:
    """The text as one LaTeX expression without dollar signs; None where it isn't one.

    Not one are texts whose braces don't match, because they would end the box they are put into (`5}{6`), and texts
    in which numbers would be joined that stood apart (`$5$ $6$`).
    """
    text = unbox(text).strip().rstrip(".")
    if "$" in text:
        joined = _DOLLARS.sub(" ", text)
        if _LOOSE_DIGITS.search(joined) and not _LOOSE_DIGITS.search(text):
            return None
        text = joined
    return _BARE_PI.sub(r"\\pi ", text.translate(_UNICODE)).strip() if _balanced(text) else None


def _balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0


def _plain_number(text: str) -> numbers.Quantity | None:
    """A number, alone or with a unit that is no variable: `5 cm` but not `5x`, and not `x = 5`."""
    number = None if "=" in text else numbers.parse(text, words=False)
    return number if number is not None and (not number.unit or numbers.is_known_unit(number.unit)) else None


def _parse(text: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    # Only as LaTeX, and boxed as a whole: the plain-text extractor would read `x + 2` as 2.
    return list(parse(f"\\boxed{{{text}}}", [LatexExtractionConfig(boxed_match_priority=0)], parsing_timeout=None))


def _equivalent(gold: str, prediction: str) -> bool:
    from math_verify import verify as math_verify

    _quiet()
    parsed_gold = _parse(gold)
    parsed = _parse(prediction)
    return bool(parsed_gold and parsed and math_verify(parsed_gold, parsed, timeout_seconds=None))


def _quiet() -> None:
    # Each call without a time limit logs a warning, and each unparsable answer a traceback.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for an equivalent expression, else 0.0; one too large to evaluate is right only if it is the same text."""
    if not answer.strip():
        return failed("invalid_gold", "the accepted answer is empty")
    detail = f"{shorten(prediction)!r} against {shorten(answer)!r}"
    if len(prediction) <= MAX_CHARS and _flat(prediction) == _flat(answer):
        return graded(1.0, detail)
    reason = too_large(answer)
    if reason is not None:
        return failed("invalid_gold", f"the accepted answer can't be evaluated: {reason}")
    reason = too_large(prediction)
    if reason is not None:
        return graded(0.0, f"not evaluated: {reason}")
    got, gold = _plain_number(prediction), _plain_number(answer)
    if got is not None and gold is not None:
        return graded(float(numbers.equal(got, gold)), detail)
    cleaned, clean_gold = _clean(prediction), _clean(answer)
    if not cleaned or not clean_gold:
        return graded(0.0, detail)
    return graded(float(_equivalent(clean_gold, cleaned)), detail)


verify = on_final_answer(grade)


def warm_up() -> None:
    """Load SymPy and the LaTeX grammar, and fill the caches that the first expressions would pay for."""
    for gold, other in (("x^2+1", "1+x^2"), (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"), ("[0,1)", r"\{1,2\}")):
        _equivalent(gold, other)
