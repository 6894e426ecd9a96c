"""One completion to grade, as it is queued by a pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `rewards.score`; `sample` holds only what its verifier reads, because it is sent to a worker.

    Example:
        Request(completion="<answer>B</answer>", answer="B", answer_type="multiple-choice")
    """

    completion: str
    answer: str | Sequence[str]
    answer_type: str
    prompt: str | None = None
    sample: Mapping[str, Any] | None = None
