"""HTTP to one SGLang server, on an event loop of its own thread.

The rollout actor's loop stays free of JSON, and a client outlives the loop of whoever calls it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE_S = 2.0
"""Connections unused for longer are not used again: the server may be about to close them."""
_CONNECT_S = 30.0
_FAIL_S = 3.0
_CLOSE_S = 6.0


class Refused(Exception):
    """The server answered a request with an error. `str` of it is what the server says."""


class Gone(Exception):
    """The server did not answer: its connection broke or none could be made."""


class SglangClient:
    """See the module docstring. `post` and `get` run on the client's loop, by way of `run`."""

    def __init__(self, url: str, key: str) -> None:
        import httpx

        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            # A completion may take hours, and a queue before it is normal; whoever wants a deadline sets one.
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_IDLE_S),
            trust_env=False,  # the server is on this machine, whatever proxies are set
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sglang-client", daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which runs on the client's loop; cancelled with the caller."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def soon(self, function: Callable[[], None]) -> None:
        """Have `function` run on the client's loop, if that is not closed. From any thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    async def post(self, path: str, payload: Any) -> Any:
        """The JSON that the server answers, or its text.

        Raises:
            Refused, Gone.
        """
        return await self._answer("POST", path, json.dumps(payload).encode())

    async def get(self, path: str) -> Any:
        """As `post`."""
        return await self._answer("GET", path, None)

    def close(self) -> None:
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._shut(), self._loop)
            self._thread.join(_CLOSE_S)

    async def _shut(self) -> None:
        own = asyncio.current_task()
        others = {task for task in asyncio.all_tasks() if task is not own}
        if others:
            # With the server gone they fail by themselves, and say so to their callers.
            _, stuck = await asyncio.wait(others, timeout=_FAIL_S)
            for task in stuck:
                task.cancel()
        await self._http.aclose()
        self._loop.stop()

    async def _answer(self, method: str, path: str, content: bytes | None) -> Any:
        import httpx

        headers = {} if content is None else {"Content-Type": "application/json"}
        try:
            response = await self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as exc:
            raise Gone(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__) from exc
        try:
            answer = json.loads(response.content) if response.content else None
        except ValueError:
            answer = response.text
        if response.status_code >= 400:
            raise Refused(_said(answer) or f"HTTP status {response.status_code}")
        return answer


def is_ready(url: str, key: str) -> bool:
    """Whether the server takes requests. Blocks."""
    import httpx

    try:
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            return client.get(f"{url}/ready", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    except httpx.HTTPError:
        return False


def _said(answer: Any) -> str:
    """The message in one of the shapes that SGLang's errors have."""
    if isinstance(answer, dict):
        for name in ("message", "error", "detail"):
            if answer.get(name):
                return _said(answer[name])
        return json.dumps(answer)[:800]
    return "" if answer is None else str(answer)[:800]
