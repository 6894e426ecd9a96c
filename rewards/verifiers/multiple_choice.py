r"""Multiple choice: letters as usually written (`C`, `(C)`, `**C**`, `\boxed{C}`, `C. text`, `A and C`) or the text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, shorten, tagged
from rewards.extract import on_final_answer
from rewards.text import bare, folded, normalised

MAX_CHARS = 4_000

_LEAD = re.compile(
    r"(?:(?:so|thus|therefore|hence),?\s+)?(?:"
    r"(?:the\s+|my\s+)?(?:correct\s+|final\s+|right\s+|best\s+)*(?:answer|option|choice)s?(?:\s+(?:is|are))?(?:\s*[:：]\s*|\s+)"
    r"|i\s+(?:choose|pick|select)\s+|it\s+is\s+|both\s+)+",
    re.I,
)
_TRAIL = re.compile(r"\s+(?:is|are)\s+(?:the\s+)?(?:correct|right|best)?\s*(?:answer|option|choice)?s?\s*\.?$", re.I)
_ONE = re.compile(r"[(\[{]?\s?([A-Za-z])\s?(?:[)\]}][.:]?|[.:、])?")
_MANY = re.compile(r"[(\[]?[A-Z][)\]]?(?:(?:\s*[,;、/&+]\s*(?:and\s+)?|\s+and\s+|\s+)[(\[]?[A-Z][)\]]?){1,25}\.?")
_RUN = re.compile(r"[A-Z]{2,26}")
_WITH_TEXT = re.compile(r"[(\[]?([A-Z])(?:[)\]][.:]?\s*|[.:、]\s*|\s+[-–—]\s+)(\S.*)", re.DOTALL)
_LETTER_LINE = re.compile(r"[(\[]?([A-Z])[)\]]?[.:]?\s*\n(.*)", re.DOTALL)
_TEXT_THEN_LETTER = re.compile(r"(\S.*?)\s*[(\[]([A-Z])[)\]]\.?", re.DOTALL)
_LETTER_THEN_TEXT = re.compile(r"([A-Z])\s+(\S.*)", re.DOTALL)
_SECOND_LETTER = re.compile(
    r"(?:^|\s)\(?[A-Z][.):](?:\s|$)|\([A-Z]\)|\b(?:or|and|nor|not)\s+\(?[A-Z]\)?(?:[.,;]|\s|$)|(?:^|\n)\s*[A-Z]\s*(?:\n|$)"
)


def options_of(sample: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> normalised text, from a row's `options`: a list, a mapping by letter, or either as JSON."""
    raw = sample.get("options")
    if isinstance(raw, str):
        try:
            raw = json.loads(raw)
        except (ValueError, RecursionError):
            return {}
    if isinstance(raw, Mapping):
        return {str(letter).strip().upper(): folded(bare(str(text))) for letter, text in raw.items()}
    if not isinstance(raw, (list, tuple)) or len(raw) > 26:
        return {}
    result = {}
    for index, text in enumerate(raw):
        letter = chr(ord("A") + index)
        prefixed = _WITH_TEXT.fullmatch(str(text).strip()[: 2 * MAX_CHARS])
        inner = prefixed.group(2) if prefixed and prefixed.group(1) == letter else str(text)
        result[letter] = folded(bare(inner))
    return result


def letters(answer: str, options: Mapping[str, str]) -> frozenset[str] | None:
    """The letters that an answer picks, or None where that can't be told without doubt.

    Text behind a letter must not be another option's, nor go on to a second letter. A letter that begins a sentence
    (`A cat`) is no choice.
    """
    if len(answer) > MAX_CHARS:
        return None
    text = bare(normalised(answer))
    if len(text) > MAX_CHARS:  # some characters stand for up to eighteen
        return None
    by_text = [letter for letter, option in options.items() if option and option == folded(text)]
    if len(by_text) == 1:
        return frozenset(by_text)
    lead = _LEAD.match(text)
    text = bare(text[lead.end() :]) if lead else text
    text = _TRAIL.sub("", text)
    one = _ONE.fullmatch(text)
    if one is not None:
        return frozenset(one.group(1).upper())
    if _MANY.fullmatch(text):
        return frozenset(re.findall(r"[A-Z](?![a-z])", text))
    if _RUN.fullmatch(text) and list(text) == sorted(set(text)) and (not options or set(text) <= set(options)):
        return frozenset(text)
    return _letter_with_text(text, options)


def _letter_with_text(text: str, options: Mapping[str, str]) -> frozenset[str] | None:
    if text.startswith("**") and text.count("**") == 2:
        text = text.replace("**", "")  # **C.** red
    named = _TEXT_THEN_LETTER.fullmatch(text)
    if named is not None and options.get(named.group(2)) == folded(bare(named.group(1))):
        return frozenset(named.group(2))  # blue (C)
    named = _LETTER_THEN_TEXT.fullmatch(text)
    if named is not None and options.get(named.group(1)) == folded(bare(named.group(2))):
        return frozenset(named.group(1))  # C blue
    match = _LETTER_LINE.fullmatch(text) or _WITH_TEXT.fullmatch(text)
    if match is None or _SECOND_LETTER.search(match.group(2)):
        return None
    letter, said = match.group(1), folded(bare(match.group(2)))
    others = {option for key, option in options.items() if key != letter}
    return None if said in others and said != options.get(letter) else frozenset(letter)


def grade(prediction: str, answer: str, sample: Mapping[str, Any]) -> RewardResult:
    """1.0 for exactly the gold letters; without letters in the gold answer, for its text."""
    if not answer.strip():
        return failed("invalid_gold", "the accepted answer is empty")
    if len(answer) > MAX_CHARS:
        return failed("invalid_gold", f"the accepted answer has {len(answer)} characters, over {MAX_CHARS}")
    options = options_of(sample)
    gold, got = letters(answer, options), letters(prediction, options)
    detail = f"{shorten(prediction)!r} against {shorten(answer)!r}"
    if gold is not None:
        return graded(float(got == gold), detail)
    if len(prediction) > MAX_CHARS:
        return graded(0.0, detail)
    return graded(float(folded(bare(prediction)) == folded(bare(answer))), detail)


verify = on_final_answer(grade)


_OPTIONS = {"options": ["a red cat", "green", "blue", "none of these"]}

EXAMPLES: tuple[Example, ...] = (
    Example(
        "C",
        right=(
            *tagged("C", "(C)", "C.", "**C**", "c", r"$\text{C}$", "C. blue", "C) blue", "C: blue", "Answer: C"),
            *tagged("The correct option is (C).", "C is correct.", "blue", "blue (C)", "C\nIt is the sky.", "Ｃ"),
            r"so it is \boxed{C}",
            r"\boxed{\textbf{(C)}}",
        ),
        wrong=(
            *tagged("B", "A, C", "B or C", "ABC", "C. green", "Cat", "C or not C", "A. a red cat C. blue", "not C"),
            *tagged("C\nB", "C because B is wrong and (B) too", "blue green", ""),
            r"\boxed{B} \boxed{C}",
            "C",
        ),
        sample=_OPTIONS,
    ),
    Example(
        "A",
        right=tagged("A", "a red cat", "A. a red cat", "(A) a red cat"),
        wrong=tagged("A cat", "A green one", "An apple", "A or B", "a blue cat"),
        sample=_OPTIONS,
    ),
    Example(
        "A, C",
        right=tagged("A, C", "C and A", "AC", "A,C", "(A) and (C)", "Both A and C", "A, and C"),
        wrong=tagged("A", "C", "A, B, C", "A, C, D", "A or C?"),
    ),
    Example("green", right=tagged("B", "green", "Green."), wrong=tagged("A", "C", "greenish"), sample=_OPTIONS),
)
