"""Figures with captions: reading them, what models are asked about them, and rules for a new caption. Pure."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rl.config.rewriting import DIFFICULTIES, CaptionRules, FigureColumns, RouteConfig
from rl.curate.asking import object_schema, read_choice, read_object, scores_schema
from rl.data.containers import RawRow
from rl.data.validate import MARKER, RowError, image_bytes
from rl.rollout.questions import Question

ASPECTS = {
    "faithfulness": "nothing in it contradicts the figure, the caption or the passages, and nothing is invented",
    "completeness": "it names every panel, axis, series, label, structure and value that matters",
    "self_containedness": "a reader who sees neither the figure nor the paper understands it",
}
MOST_CONTEXT = 12_000
"""Characters of in-text references that a model is shown."""
PIECE = 4
_OUTSIDE = re.compile(
    r"\b(?:as (?:shown|described|discussed|reported) (?:in the (?:text|main text|paper)|above|below|elsewhere)"
    r"|see (?:the )?(?:text|main text|ref\.?|refs\.?|supplementary)|(?:in|from) (?:ref|refs|eq|section|table)\.? ?\[?\d"
    r"|supplementary (?:fig|figure|table|information|note)\w*"
    r"|(?:in|see|cf\.) (?:fig|figure)s?\.? ?\d)|(?<!\w)\[\d{1,3}\]",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"\A\W{0,9}(?:i(?:'m| am) (?:sorry|unable)|i (?:can ?not|can't)|as an ai|sorry\b|unfortunately,? i)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with what was written about it."""

    id: str
    image: bytes
    caption: str
    context: str = ""
    """In-text references, a paragraph each."""
    questions: str | None = None
    """JSON list for caption QA."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of plain text and numbers, carried through."""


def read_figure(raw: RawRow, columns: FigureColumns) -> Figure:
    """A row as a figure.

    Raises:
        RowError: no image, no caption, or columns of other types.
    """
    if raw.error is not None:
        raise RowError(raw.error)
    values = raw.values
    image = values.get(columns.image)
    if isinstance(image, list):
        if len(image) != 1:
            raise RowError(f"column {columns.image} holds {len(image)} images; a figure has one")
        image = image[0]
    caption = values.get(columns.caption)
    if not isinstance(caption, str):
        raise RowError(f"column {columns.caption} is a {type(caption).__name__}; the caption must be text")
    named = values.get(columns.id)
    questions = values.get(columns.questions)
    if questions is not None and not isinstance(questions, str):
        questions = json.dumps([{k: v for k, v in row.items() if v is not None} for row in questions])
    used = {getattr(columns, name) for name in FigureColumns.model_fields}
    return Figure(
        id=str(named) if named not in (None, "") else f"{raw.file.stem}_{raw.row}",
        image=image_bytes(image, raw.file.parent if raw.file.is_file() else raw.file, 0),
        caption=caption.strip(),
        context=_joined(values.get(columns.context), columns.context),
        questions=questions,
        columns={
            name: value
            for name, value in values.items()
            if name not in used and isinstance(value, str | int | float | None)
        },
    )


def _joined(value: Any, column: str) -> str:
    """In-text references as one text, each passage once."""
    items = [value] if isinstance(value, str) else list(value or ())
    if not all(isinstance(item, str) for item in items):
        raise RowError(f"column {column} must be text or a list of texts")
    return "\n\n".join(dict.fromkeys(item.strip() for item in items if item.strip()))


def ask_route(figure: Figure, types: Sequence[str]) -> tuple[Question, dict[str, Any]]:
    """Type and difficulty of a figure; with the reply's schema."""
    text = (
        f"{MARKER}\nCaption: {_shown(figure.caption)}\n\nWhat kind of figure is this, and how hard is it to describe "
        f"it fully? Types: {', '.join(types)}. Difficulty: easy for one panel with few elements, hard for many panels, "
        'dense data or structures that take an expert. Reply with JSON: {"figure_type": "...", "difficulty": "..."}'
    )
    schema = object_schema(
        {
            "figure_type": {"type": "string", "enum": list(types)},
            "difficulty": {"type": "string", "enum": list(DIFFICULTIES)},
        }
    )
    return Question(text, (figure.image,)), schema


def read_route(reply: str, types: Sequence[str]) -> tuple[str, str]:
    """(figure type, difficulty); raises `UnreadableReply`."""
    value = read_object(reply)
    return read_choice(value, "figure_type", types), read_choice(value, "difficulty", DIFFICULTIES)


def route(kind: tuple[str, str] | None, routes: Sequence[RouteConfig]) -> str:
    """The model of the first route that takes a figure of this type and difficulty."""
    for each in routes:
        if kind is None and (each.types or each.difficulties):
            continue
        if kind is not None and each.types and kind[0] not in each.types:
            continue
        if kind is not None and each.difficulties and kind[1] not in each.difficulties:
            continue
        return each.model
    raise AssertionError("the last route takes all, as the config checks")


def ask_caption(figure: Figure, kind: tuple[str, str] | None) -> Question:
    """A new caption from the figure, its caption and what the paper says of it."""
    said = f"\n\nThe figure is of the kind: {kind[0]}." if kind else ""
    passages = f"\n\nPassages of the paper that speak of it:\n{_shown(figure.context)}" if figure.context else ""
    return Question(
        f"{MARKER}\nCaption in the paper: {_shown(figure.caption)}{passages}{said}\n\nWrite a caption that stands "
        "alone: what the figure is, then panel by panel what it shows, with axes, units, labels, values, trends and "
        "structures that can be read from it, and what the passages say they mean. Say only what the figure, the "
        "caption or the passages support. Don't point to the paper, to other figures or to references. Reply with the "
        "caption alone.",
        (figure.image,),
    )


def ask_quality(figure: Figure, caption: str) -> tuple[Question, dict[str, Any]]:
    """Scores of a new caption; with the reply's schema."""
    asked = "; ".join(f"{name}: {meaning}" for name, meaning in ASPECTS.items())
    text = (
        f"{MARKER}\nCaption in the paper: {_shown(figure.caption)}\n\nPassages: {_shown(figure.context) or 'none'}\n\n"
        f"New caption: {_shown(caption)}\n\nScore the new caption from 1 to 5 on each of: {asked}. Reply with JSON of "
        "these keys and integers."
    )
    return Question(text, (figure.image,)), scores_schema(ASPECTS)


def rule_broken(caption: str, rules: CaptionRules) -> tuple[str, str] | None:
    """(reason, detail) of the first rule that a caption breaks."""
    words = caption.split()
    if _REFUSAL.match(caption):
        return "refused", caption[:80]
    if not rules.min_words <= len(words) <= rules.max_words:
        return "length", f"{len(words)} words; wanted {rules.min_words} to {rules.max_words}"
    repeated = repeated_share(words)
    if repeated > rules.max_repeated:
        return "repeating", f"{repeated:.0%} of its {PIECE}-word pieces stood before"
    outside = _OUTSIDE.search(caption) if rules.self_contained else None
    return None if outside is None else ("not_self_contained", f"points outside: {outside.group()!r}")


def repeated_share(words: Sequence[str]) -> float:
    """Share of runs of 4 words that stood before."""
    pieces = Counter(tuple(word.casefold() for word in words[i : i + PIECE]) for i in range(len(words) - PIECE + 1))
    total = pieces.total()
    return (total - len(pieces)) / total if total else 0.0


def _shown(text: str) -> str:
    """Material for a prompt: cut, and without image markers of its own."""
    return text[:MOST_CONTEXT].replace(MARKER, "")
