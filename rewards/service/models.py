"""The bodies of requests and responses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScoreRequest(_Body):
    """One completion to grade; the arguments of `rewards.score`."""

    completion: str = Field(description="What the policy wrote, reasoning included.")
    answer: str | list[str] = Field(description="The accepted answer, or several of which the best grade counts.")
    answer_type: str = Field(max_length=200, description="Which verifier grades; see /v1/verifiers.")
    prompt: str | None = Field(None, description="The text that the policy saw, if its verifier reads it.")
    sample: dict[str, Any] | None = Field(None, description="Further columns of the row: options, prompt_type, ...")


class ScoreResponse(_Body):
    """How one completion was graded."""

    value: float | None = Field(description="The reward; null for timeout, error and invalid_gold, which are no zeros.")
    status: Literal["ok", "no_answer", "timeout", "error", "invalid_gold"]
    components: dict[str, float] = Field(description="Named parts of the grade: accuracy, format, ...")
    detail: str = Field(description="One line for people.")


class BatchRequest(_Body):
    """Completions to grade at once."""

    requests: list[ScoreRequest] = Field(description="At most `limits.max_batch` of /v1/verifiers.")


class BatchResponse(_Body):
    """Results in the order of the requests."""

    results: list[ScoreResponse]


class VerifierInfo(_Body):
    """One answer type that the service knows."""

    name: str
    origin: str = Field(description="built in, given, or the package that installed it.")
    missing: list[str] = Field(description="Libraries it needs that are not installed here; empty if it can be used.")
    timeout_s: float = Field(description="Seconds that one result may take.")


class Limits(_Body):
    """What one request may hold."""

    max_batch: int
    max_body_bytes: int


class VerifiersResponse(_Body):
    """What the service can grade, and how much of it at once."""

    verifiers: list[VerifierInfo]
    limits: Limits


class HealthResponse(_Body):
    """Whether new work is taken."""

    status: Literal["ok", "draining", "broken"]


class ErrorBody(_Body):
    code: str = Field(description="For programs: unknown_verifier, too_large, busy, draining, unauthorised, ...")
    message: str = Field(description="For people: what was got and what to do.")


class ErrorResponse(_Body):
    """The body of every response that is not 2xx."""

    error: ErrorBody
