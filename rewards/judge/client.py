"""One chat completion over HTTP: errors sorted into those that a retry may mend and those that it can't."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rewards.base import shorten
from rewards.judge.settings import JudgeConfig
from rewards.settings import SettingsError

if TYPE_CHECKING:
    import httpx

MAX_BODY_BYTES = 4 * 2**20
RETRIED = frozenset({408, 409, 425, 429})
MAX_RETRY_AFTER_S = 24 * 3600.0


class JudgeError(Exception):
    """A judge that gave no verdict. `status` is that of the result."""

    def __init__(self, detail: str, *, status: str = "error", retry: bool = False, after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.status = status
        self.retry = retry
        """Whether the same request may succeed later."""
        self.after_s = after_s
        """Seconds that the server asks to wait; 0 where it does not say."""


def api_key(config: JudgeConfig, environ: Mapping[str, str]) -> str | None:
    """The key from the environment; None for an endpoint without one.

    Raises:
        SettingsError: the variable that the settings name is not set.
    """
    if config.api_key_env is None:
        return None
    key = environ.get(config.api_key_env, "").strip()
    if not key:
        raise SettingsError(
            f"the judge's key is read from the environment variable {config.api_key_env}, which is not set; "
            "export it, or set api_key_env to null for an endpoint without a key"
        )
    return key


class ChatClient:
    """`POST {url}/chat/completions`; must be made and used in one event loop.

    Raises:
        SettingsError: the API key is missing, or httpx is not installed.
    """

    def __init__(self, config: JudgeConfig, environ: Mapping[str, str]) -> None:
        try:
            import httpx
        except ModuleNotFoundError as exc:
            raise SettingsError("judges need httpx; install the extra `client`") from exc

        self._httpx = httpx
        self._config = config
        self._key = api_key(config, environ)
        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        limits = httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency)
        self._client = httpx.AsyncClient(headers=headers, timeout=config.request_timeout_s, limits=limits)

    async def complete(self, messages: list[dict[str, str]], schema: Mapping[str, Any], seed: int) -> str:
        """The content of the first choice.

        Raises:
            JudgeError: refused, late, or a reply that is no completed chat completion.
        """
        return _content(await self.post(self._body(messages, schema, seed)))

    async def post(self, body: Mapping[str, Any]) -> bytes:
        """What the server answers to a request body with status 200.

        Raises:
            JudgeError: refused or late.
        """
        try:
            async with self._client.stream("POST", f"{self._config.url}/chat/completions", json=dict(body)) as response:
                data = await self._read(response)
                status, headers = response.status_code, response.headers
        except self._httpx.TimeoutException as exc:
            late = f"no reply within {self._config.request_timeout_s:g} s"
            raise JudgeError(late, status="timeout", retry=True) from exc
        except self._httpx.HTTPError as exc:
            raise JudgeError(self._safe(f"{type(exc).__name__}: {exc}"), retry=True) from exc
        if status != 200:
            raise JudgeError(
                self._safe(f"HTTP {status}: {shorten(data.decode(errors='replace'), 200)}{_advice(status)}"),
                retry=status in RETRIED or status >= 500,
                after_s=retry_after(headers.get("retry-after"), time.time()),
            )
        return data

    async def close(self) -> None:
        await self._client.aclose()

    def _body(self, messages: list[dict[str, str]], schema: Mapping[str, Any], seed: int) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            **config.extra,
        }
        if config.send_seed:
            body["seed"] = seed
        if config.structured == "json_schema":
            named = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        elif config.structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body

    async def _read(self, response: httpx.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise JudgeError(f"the reply has over {MAX_BODY_BYTES} bytes")
        return bytes(data)

    def _safe(self, text: str) -> str:
        """Servers repeat the key in their errors at times; details go into logs."""
        return text.replace(self._key, "***") if self._key else text


def retry_after(value: str | None, now: float) -> float:
    """Seconds to wait that a `Retry-After` header names, as a number or an HTTP date; 0 where it can't be read."""
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return 0.0
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else 0.0


def _content(data: bytes) -> str:
    try:
        choice = json.loads(data)["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as exc:
        raise JudgeError(f"the reply is no chat completion: {shorten(data[:400].decode(errors='replace'))}") from exc
    if choice.get("finish_reason") == "length":
        raise JudgeError("the verdict was cut off; raise max_tokens", retry=True)
    if not isinstance(content, str) or not content.strip():
        refusal = choice["message"].get("refusal")
        raise JudgeError(f"the reply is empty{f' (refused: {refusal!r:.80})' if refusal else ''}", retry=True)
    return content


def _advice(status: int) -> str:
    if status in (401, 403):
        return " (check api_key_env)"
    if status == 404:
        return " (check url and model)"
    if status == 400:
        return " (an endpoint without response_format needs structured: json_object or none)"
    return ""
