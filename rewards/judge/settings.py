"""Settings of a judge: which endpoint and model, how many votes, and what it may cost in time and requests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rewards.settings import Settings

RESERVED = ("model", "messages", "response_format", "temperature", "max_tokens", "seed", "n", "stream")


class JudgeConfig(Settings):
    """One judge behind an OpenAI-compatible endpoint (`POST {url}/chat/completions`).

    Example (YAML):
        url: http://127.0.0.1:8000/v1
        model: Qwen/Qwen3-32B
        votes: 3
        temperature: 0.7
        cache: runs/judge.sqlite
    """

    url: str
    """Base URL of the API, usually ending in `/v1`."""
    model: str = Field(min_length=1)
    api_key_env: str | None = None
    """Name of the environment variable that holds the API key; the key itself never stands in a file."""
    votes: int = Field(1, ge=1, le=64)
    """Independent verdicts per answer. More than half of them must come in, else the result is a failure."""
    vote: Literal["majority", "mean"] = "majority"
    """`majority` takes the most frequent score, of equally frequent ones the lowest; `mean` the average."""
    levels: int = Field(1, ge=1, le=100)
    """Highest score; a score s is worth s / levels. 1 is right or wrong."""
    explain: bool = False
    """Have the judge write a short analysis before its score: better verdicts, more tokens."""
    rubric: str = ""
    """Added to the judge's instructions; a row's own `rubric` comes after it."""
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(1024, ge=8)
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How the endpoint is held to JSON: by schema, to any JSON object, or by the instructions alone."""
    send_seed: bool = True
    """A seed per vote and try. False for endpoints that refuse the key `seed`."""
    extra: dict[str, Any] = {}
    """Further keys of the request body, such as `chat_template_kwargs`."""
    concurrency: int = Field(32, ge=1, le=4096)
    """Requests in flight at a time."""
    requests_per_minute: float | None = Field(None, gt=0)
    request_timeout_s: float = Field(60.0, gt=0)
    """Seconds that one HTTP request may take; then it is tried again."""
    deadline_s: float = Field(180.0, gt=0)
    """Seconds from the call to the result, with waiting, retries and all votes; beyond them it is a `timeout`."""
    retries: int = Field(4, ge=0, le=20)
    """Further tries of a vote after refused connections, 408, 409, 425, 429, 5xx and replies without a verdict."""
    backoff_s: float = Field(0.5, ge=0)
    """First pause before a retry; it doubles each time, up to 20 s. A `Retry-After` counts where it is longer."""
    cache: str | None = None
    """SQLite file with the verdicts so far, by digest of settings and prompt; null keeps none."""
    max_answer_chars: int = Field(20_000, ge=1)
    """A longer answer is wrong without asking."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url {url!r} is not an http:// or https:// address; give the base URL of the API")
        return url.rstrip("/")

    @field_validator("extra")
    @classmethod
    def _no_key_of_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(extra) & set(RESERVED))
        if taken:
            raise ValueError(f"extra may not set {', '.join(taken)}; these follow from the other settings")
        return extra

    @model_validator(mode="after")
    def _votes_differ(self) -> JudgeConfig:
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(
                f"{self.votes} votes at temperature 0 would be the same verdict {self.votes} times; "
                "set temperature above 0, or votes to 1"
            )
        return self
