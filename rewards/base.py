"""What every verifier takes and gives: the result record, the protocol, and the one error for unknown names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

Status = Literal["ok", "no_answer", "timeout", "error", "invalid_gold"]
STATUSES: tuple[str, ...] = get_args(Status)


class UnknownVerifier(ValueError):
    """An answer type that no verifier scores. Raised when names are checked, before anything is scored."""


@dataclass(frozen=True, slots=True)
class RewardResult:
    """The outcome of grading one completion.

    A failed grader is not a wrong answer: `timeout`, `error` and `invalid_gold` have no value, so that the trainer
    masks them out of its statistics instead of learning from a zero.

    Example:
        RewardResult(value=1.0, status="ok", components={"accuracy": 1.0, "format": 0.0}, detail="")
    """

    value: float | None
    """The reward: a verifier's is in [0, 1], what a mixture makes of several may lie outside. 0.0 for `no_answer`, None
    for a failed grader."""
    status: Status
    components: dict[str, float] = field(default_factory=dict)
    """Named parts of the grade, for logging and for mixtures: `accuracy`, `format`, ..."""
    detail: str = ""
    """One line for people: what was compared, or why there is no value."""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not known; use one of {', '.join(STATUSES)}")
        if self.status == "ok":
            if not _is_number(self.value):
                raise ValueError(f"status 'ok' needs a finite value, got {self.value!r}; a failed grade is an 'error'")
        elif self.status == "no_answer":
            if self.value != 0.0 or not _is_number(self.value):
                raise ValueError(f"status 'no_answer' has the value 0.0, got {self.value!r}")
        elif self.value is not None:
            raise ValueError(
                f"status {self.status!r} has no value (None), got {self.value!r}: it is not a wrong answer"
            )
        for name, part in self.components.items():
            if not isinstance(name, str) or not _is_number(part):
                raise ValueError(f"component {name!r} is {part!r}; components are finite numbers by name")


class Verifier(Protocol):
    """Grades one completion against one accepted answer; a plug-in is one such function or class."""

    def __call__(
        self, completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
    ) -> RewardResult:
        """Return a result, never raise for a bad completion.

        An exception, and a value outside [0, 1], are reported as status `error`.

        Args:
            completion: what the policy wrote, reasoning included.
            answer: one accepted answer; with several, the verifier is called for each and the best grade counts.
            prompt: the text that the policy saw, if known.
            sample: further columns of the row (`options`, `prompt_type`, ...), if known.
        """
        ...


@dataclass(frozen=True, slots=True)
class Example:
    """A gold answer with completions whose grade is beyond doubt; a verifier's module lists some as `EXAMPLES`.

    The conformance kit grades them: every text in `right` must get 1, every one in `wrong` 0.

    Example:
        Example("4", right=("<answer>4</answer>", "<answer>4.0</answer>"), wrong=("<answer>5</answer>", "no idea"))
    """

    answer: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    sample: Mapping[str, Any] | None = None
    """Further columns of the row (`options`, ...), where the verifier reads them."""


def tagged(*answers: str) -> tuple[str, ...]:
    """Well-formed completions that end in these answers, for `Example`."""
    return tuple(f"<think>...</think><answer>{answer}</answer>" for answer in answers)


def graded(value: float, detail: str = "", **components: float) -> RewardResult:
    """Status `ok`; `accuracy` is the value unless given."""
    return RewardResult(float(value), "ok", {"accuracy": float(value), **components}, detail)


def no_answer(detail: str = "no complete answer after the reasoning") -> RewardResult:
    return RewardResult(0.0, "no_answer", {"accuracy": 0.0}, detail)


def failed(status: Status, detail: str) -> RewardResult:
    """Status `timeout`, `error` or `invalid_gold`: no value, and the reason."""
    return RewardResult(None, status, {}, detail)


def shorten(text: str, limit: int = 80) -> str:
    """`text` on one line and short enough for a detail."""
    line = " ".join(text[: 4 * limit].split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
