"""Form only: the tags in the right order, a length that was allowed, and no loops. The gold answer is not looked at."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed
from rewards.extract import is_well_formed

NGRAM = 8
MAX_WORDS = 20_000
TOLERATED, HOPELESS = 0.2, 0.6
"""Repetition up to which a completion loses nothing, and from which it is worth nothing. Derivations repeat phrases."""
SOFT_SHARE = 0.2
"""The last part of the allowed length, over which the reward falls."""

_GOOD = "<think>Two and two make four.</think><answer>4</answer>"

EXAMPLES = (
    Example(
        "",
        right=(_GOOD, "Two and two make four.</think>\n<answer>4</answer>", "<think></think><answer>no idea</answer>"),
        wrong=(
            "",
            "4",
            "<answer>4</answer>",
            "<think>Two and two make four.<answer>4</answer></think>",
            "<answer>4</answer><think>Two and two make four.</think>",
            "<think>Two</think><answer>4</answer> and so on",
            "<think>Two</think><answer>4</answer><answer>4</answer>",
            "<think>Two</think><answer>4",
            "<think>" + "wait, " * 5_000 + "</think><answer>4</answer>",
            "<think>" + "again" * 50_000 + "</think><answer>4</answer>",
            "<think>" * 50_000,
        ),
    ),
    Example("", right=("<answer>4</answer>",), wrong=(_GOOD, "4"), sample={"prompt_type": "normal"}),
    Example("", right=(_GOOD,), wrong=(_GOOD.replace("four", "four and not one more"),), sample={"max_chars": 70}),
)


def verify(
    completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
) -> RewardResult:
    """The product of three parts, each in [0, 1] and a component of its own, so that a mixture can weigh them anew.

    `format` is 1 for the tags that the row's `prompt_type` asks for. `brevity` falls with the length where the row
    says `max_chars`, see `brevity`. `originality` falls with `repetition`, from 1 at `TOLERATED` to 0 at `HOPELESS`.
    For logs: `length` in characters, `repetition`, and `compression`.
    """
    row = sample or {}
    limit = row.get("max_chars")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0):
        return failed("error", f"the row's max_chars is {limit!r}; give a whole number of characters above 0")
    share = repetition(completion)
    parts = {
        "format": float(is_well_formed(completion, thinks=row.get("prompt_type") != "normal")),
        "brevity": brevity(len(completion), limit) if limit is not None else 1.0,
        "originality": min(1.0, max(0.0, (HOPELESS - share) / (HOPELESS - TOLERATED))),
    }
    seen = {"length": float(len(completion)), "repetition": share, "compression": compression(completion)}
    value = parts["format"] * parts["brevity"] * parts["originality"]
    return RewardResult(value, "ok", {**parts, **seen}, "")


def brevity(length: int, limit: int, soft_share: float = SOFT_SHARE) -> float:
    """1 up to `(1 - soft_share) * limit`, then falling in a line to 0 at `limit`.

    The soft overlong punishment of DAPO (arXiv 2503.14476, equation 13), plus 1.
    """
    soft = soft_share * limit
    return min(1.0, max(0.0, (limit - length) / soft)) if soft else float(length <= limit)


def repetition(text: str, ngram: int = NGRAM) -> float:
    """Share of the runs of `ngram` words that occurred before, in [0, 1): 0 for ordinary text, near 1 for a loop.

    Text without spaces is taken by characters, in runs of as many. Only the last 20,000 words are looked at. Counting
    repeated n-grams against loops follows Yeo et al. 2025 (arXiv 2502.03373).
    """
    words: list[str] | str = text.split()[-MAX_WORDS:]
    if len(words) < len(text) / 40:
        words = text[-MAX_WORDS:]
    runs = [tuple(words[start : start + ngram]) for start in range(len(words) - ngram + 1)]
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def compression(text: str) -> float:
    """Bytes of the last 20,000 characters over their bytes when compressed; 1.0 for an empty text.

    Ordinary text has 1.5 to 2.5, a loop far more; Radford et al. 2022 (arXiv 2212.04356) take 2.4 as the sign of one.
    """
    data = text[-MAX_WORDS:].encode("utf-8", "replace")
    return len(data) / len(zlib.compress(data)) if data else 1.0
