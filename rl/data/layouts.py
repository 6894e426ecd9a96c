"""The layouts of verl, TRL and ViRL39K, translated to and from RL-172K rows; checking is left to `rl.data.validate`.

verl:    prompt (messages), images, data_source, ability, reward_model{ground_truth, style}, extra_info
TRL:     prompt (text or messages), images or image, and columns of any name; the answer in answer or ground_truth
ViRL39K: question, answer in \\boxed{}, image (paths), PassRate_*, category, source, qid
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rl.data.containers import RawRow
from rl.data.schema import CORE_COLUMNS
from rl.data.validate import MARKER, RowError
from rl.records import Sample

CARRIED = ("problem_type", "answer_type", "source", "prompt_type", "format_guidance")
"""Columns of ours that verl and TRL have no place for; written beside theirs, so that a round trip keeps them."""

DEFAULT_PROBLEM_TYPE = "general"
DEFAULT_ANSWER_TYPE = "any"


def read_verl(raw: RawRow) -> dict[str, Any]:
    """A verl row; `extra_info` supplies id and types where it has them."""
    values = raw.values
    info = _mapping(values, "extra_info", default={})
    reward = _mapping(values, "reward_model", default=None)
    text = _prompt_text(values)
    return {
        "id": info.get("id") or f"{values.get('data_source', 'verl')}_{raw.row}",
        "problem": text,
        "answer": reward.get("ground_truth"),
        "images": values.get("images"),
        "problem_type": info.get("problem_type") or DEFAULT_PROBLEM_TYPE,
        "answer_type": info.get("answer_type") or DEFAULT_ANSWER_TYPE,
        "source": info.get("source") or values.get("data_source") or "verl",
        "prompt_type": info.get("prompt_type"),
        "format_guidance": info.get("format_guidance"),
        "data_source": values.get("data_source"),
        "ability": values.get("ability"),
    }


def write_verl(sample: Sample) -> dict[str, Any]:
    """A verl row graded by rule; several accepted answers stay a list."""
    answers = list(sample.answers)
    return {
        "data_source": sample.extra.get("data_source") or sample.source,
        "prompt": [{"role": "user", "content": sample.problem}],
        "images": [{"bytes": data, "path": None} for data in sample.images],
        "ability": sample.extra.get("ability") or sample.problem_type,
        "reward_model": {"style": "rule", "ground_truth": answers},
        "extra_info": {"id": sample.id, **{name: getattr(sample, name) for name in CARRIED}},
    }


def read_trl(raw: RawRow) -> dict[str, Any]:
    """A TRL row; columns that we have no name for are carried through."""
    values = raw.values
    answer = next((values[name] for name in ("answer", "ground_truth", "solution") if values.get(name)), None)
    if answer is None:
        raise RowError("missing columns: one of answer, ground_truth, solution")
    images = values.get("images") if values.get("images") is not None else values.get("image")
    used = {"prompt", "image", "images", "ground_truth", *CORE_COLUMNS}
    return {
        "id": values.get("id") or f"trl_{raw.row}",
        "problem": _prompt_text(values),
        "answer": answer,
        "images": images,
        "problem_type": values.get("problem_type") or DEFAULT_PROBLEM_TYPE,
        "answer_type": values.get("answer_type") or DEFAULT_ANSWER_TYPE,
        "source": values.get("source") or "trl",
        "prompt_type": values.get("prompt_type"),
        "format_guidance": values.get("format_guidance"),
        **{name: value for name, value in values.items() if name not in used},
    }


def write_trl(sample: Sample) -> dict[str, Any]:
    """A conversational TRL row: an image part per marker, the other columns beside the prompt."""
    content: list[dict[str, str | None]] = []
    for number, piece in enumerate(sample.problem.split(MARKER)):
        if number:
            content.append({"type": "image", "text": None})
        if piece:
            content.append({"type": "text", "text": piece})
    return {
        "prompt": [{"role": "user", "content": content}],
        "images": [{"bytes": data, "path": None} for data in sample.images],
        "id": sample.id,
        "answer": list(sample.answers),
        **{name: getattr(sample, name) for name in CARRIED},
        **sample.extra,
    }


def read_virl39k(raw: RawRow) -> dict[str, Any]:
    """A ViRL39K row: a single letter is multiple choice, anything else is judged as mathematics."""
    values = raw.values
    question, answer = values.get("question"), values.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise RowError("missing columns: question and answer must be text")
    final = unbox(answer)
    letter = len(final) == 1 and final in "ABCDEFGH"
    image = values.get("image")
    images = image if isinstance(image, list) else [] if image is None else [image]
    if images and MARKER not in question:
        question = MARKER * len(images) + question
    return {
        "id": values.get("qid") or f"virl39k_{raw.row}",
        "problem": question,
        "answer": [final],
        "images": images,
        "problem_type": "stem",
        "answer_type": "multiple-choice" if letter else "math-expressions",
        "source": values.get("source") or "virl39k",
        "prompt_type": "think",
        "ability": values.get("category"),
        **{name: value for name, value in values.items() if name.startswith("PassRate_")},
    }


def unbox(text: str) -> str:
    """What stands in the last `\\boxed{...}`, braces matched; the text itself where there is none.

    Raises:
        RowError: the box never closes.
    """
    start = text.rfind("\\boxed{")
    if start < 0:
        return text.strip()
    depth, begin = 1, start + len("\\boxed{")
    for end in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[begin:end].strip()
    raise RowError(f"answer {text!r} opens a \\boxed{{ that never closes")


def _prompt_text(values: Mapping[str, Any]) -> str:
    """The user's words of a prompt given as text or messages, image parts as markers.

    A system message is not part of the question: prompts are rendered with the run's own.
    """
    prompt = values.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list) or not all(isinstance(message, Mapping) for message in prompt):
        raise RowError(f"prompt is a {type(prompt).__name__}; it must be text or a list of messages")
    turns = [message for message in prompt if message.get("role") != "system"]
    if len(turns) != 1 or turns[0].get("role") != "user":
        roles = ", ".join(str(message.get("role")) for message in prompt) or "none"
        raise RowError(f"prompt must hold one user message, got roles: {roles}")
    content = turns[0].get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError(f"the message's content is a {type(content).__name__}; it must be text or a list of parts")
    return "".join(MARKER if part.get("type") == "image" else part.get("text") or "" for part in content)


def _mapping(values: Mapping[str, Any], name: str, default: Mapping[str, Any] | None) -> Mapping[str, Any]:
    value = values.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, Mapping):
        raise RowError(f"missing columns: {name} must be a mapping, got {type(value).__name__}")
    return value


READERS: dict[str, Callable[[RawRow], dict[str, Any]]] = {
    "verl": read_verl,
    "trl": read_trl,
    "virl39k": read_virl39k,
}
WRITERS: dict[str, Callable[[Sample], dict[str, Any]]] = {"verl": write_verl, "trl": write_trl}
