"""What a request passes before the application sees it: token, drain, size and time of its body.

The body is read here, with its limits, and handed on whole. A client that hangs up while it is graded cancels its
request, so that work which nobody waits for makes room.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rewards.service.load import Load, Refused
from rewards.service.metrics import Metrics
from rewards.service.settings import ServiceSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/healthz",)
"""Answered without a token: load balancers have none, and it tells nothing."""
SCORING_PATHS = ("/v1/score", "/v1/score_batch")


class _HungUp(Exception):
    """The client is gone before its body has arrived."""


class Gate:
    """ASGI middleware around the application."""

    def __init__(self, app: App, settings: ServiceSettings, load: Load, metrics: Metrics) -> None:
        self._app, self._settings, self._load, self._metrics = app, settings, load, metrics
        self._wanted = None if settings.token is None else f"Bearer {settings.token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # what proxies log for a client that hung up
        begun = False

        async def noting(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        scoring = scope["path"] in SCORING_PATHS
        self._load.requests += scoring
        try:
            await self._pass(scope, receive, noting)
        except _HungUp:
            pass
        except Refused as refusal:
            assert not begun, "only what has not been answered is refused"
            await send_refusal(refusal, noting)
        finally:
            self._load.requests -= scoring
            self._metrics.request(scope["path"], status, time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if scope["path"] not in OPEN_PATHS:
            self._authorise(headers)
        if scope["path"] not in SCORING_PATHS:
            await self._app(scope, receive, send)
            return
        self._load.refuse_if_draining()
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(self._settings.body_timeout_s):
                    await self._read(headers, receive, body)
            except TimeoutError:
                wait = self._settings.body_timeout_s
                raise Refused(408, "slow_body", f"the body did not arrive within {wait:g} s") from None
            await self._run(scope, bytes(body), receive, send)
        finally:
            self._load.held_bytes -= len(body)

    def _authorise(self, headers: dict[bytes, bytes]) -> None:
        if self._wanted is not None and not hmac.compare_digest(headers.get(b"authorization", b""), self._wanted):
            raise Refused(401, "unauthorised", "the token is missing or wrong; send `Authorization: Bearer TOKEN`")

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, body: bytearray) -> None:
        limit = self._settings.max_body_bytes
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise Refused(413, "too_large", f"a body of {int(announced)} bytes; at most {limit} are taken")
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _HungUp
            chunk = message.get("body", b"")
            if len(body) + len(chunk) > limit:
                raise Refused(413, "too_large", f"a body of over {limit} bytes, which is the most that is taken")
            self._load.hold(len(chunk))
            body += chunk
            more = message.get("more_body", False)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """The application with the body, until it is done or the client hangs up."""
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def hand_on() -> Message:
            if waiting:
                return waiting.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work = asyncio.ensure_future(self._app(scope, hand_on, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                self._metrics.hung_up()
            await asyncio.gather(work, return_exceptions=True)
        finally:
            work.cancel()
            watcher.cancel()
        if not work.cancelled() and (error := work.exception()) is not None:
            raise error


def error_body(code: str, message: str) -> dict[str, Any]:
    """The body of a response that is not 2xx, as `models.ErrorResponse`."""
    return {"error": {"code": code, "message": message}}


def refusal_headers(refusal: Refused) -> dict[str, str]:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["retry-after"] = str(refusal.retry_after_s)
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


async def send_refusal(refusal: Refused, send: Send) -> None:
    """Answer with a refusal, whether or not the body has been read."""
    data = json.dumps(error_body(refusal.code, refusal.message)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(data)), **refusal_headers(refusal)}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": data})
