"""Config of a model behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from rl.config.base import StrictModel

RESERVED = ("model", "messages", "response_format", "temperature", "max_tokens", "seed", "n", "stream")


class EndpointConfig(StrictModel):
    """`POST {url}/chat/completions`, with retries."""

    url: str
    """Base URL of the API, usually ending in `/v1`."""
    model: str = Field(min_length=1)
    """Its name there."""
    api_key_env: str | None = None
    """Environment variable that holds the API key; the key itself has no place in a config."""
    concurrency: int = Field(32, ge=1, le=4096)
    """Requests in flight at a time."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Most requests in a minute; null sets no limit."""
    request_timeout_s: float = Field(600.0, gt=0)
    """Deadline of one request."""
    retries: int = Field(6, ge=0, le=50)
    """Further tries after refused connections, 408, 409, 425, 429, 5xx and replies that are no chat completion."""
    backoff_s: float = Field(0.5, ge=0)
    """First pause before a retry; it doubles each time, up to 20 s. A `Retry-After` counts where it is longer."""
    give_up_after: int = Field(100, ge=1)
    """Requests in a row that may fail with all their retries before the run ends."""
    send_seed: bool = True
    """False for endpoints that refuse the key `seed`; attempts can't be made again just as they were then."""
    opens_reasoning: bool = False
    """The endpoint's chat template ends in `<think>`, so that replies begin within the reasoning."""
    extra: dict[str, Any] = {}
    """Further keys of the request body, such as `chat_template_kwargs`."""

    @field_validator("url")
    @classmethod
    def _url_without_secrets(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be of the form http://host:port/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("a password or key in it would be saved with the run; set api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _names_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("it names an environment variable, such as API_KEY; it is not the key")
        return name

    @field_validator("extra")
    @classmethod
    def _no_key_of_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(extra) & set(RESERVED))
        if taken:
            raise ValueError(f"it may not set {', '.join(taken)}; these follow from the other settings")
        return extra
