"""A real HTTP server on the loopback interface that speaks the OpenAI chat protocol and does what a test tells it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends: `content` as a chat completion, or `raw` bytes as they are."""

    content: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    finish_reason: str = "stop"


@dataclass
class Call:
    """A request as it arrived."""

    body: dict[str, Any]
    headers: dict[str, str]
    at: float

    @property
    def system(self) -> str:
        return str(self.body["messages"][0]["content"])

    @property
    def user(self) -> str:
        return str(self.body["messages"][1]["content"])


Script = Callable[[Call, int], Reply]


@dataclass
class JudgeServer:
    """`script(call, number)` answers each request; `calls` holds them in order of arrival."""

    url: str
    script: Script
    calls: list[Call] = field(default_factory=list)
    most_at_once: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def score(value: object) -> Reply:
    return Reply(json.dumps({"score": value}))


@contextmanager
def serve(script: Script) -> Iterator[JudgeServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            call = Call(body, {name.lower(): value for name, value in self.headers.items()}, time.monotonic())
            with judge.lock:
                number = len(judge.calls)
                judge.calls.append(call)
                judge.running += 1
                judge.most_at_once = max(judge.most_at_once, judge.running)
            try:
                reply = judge.script(call, number) if self.path == "/v1/chat/completions" else Reply(status=404)
            finally:
                with judge.lock:
                    judge.running -= 1
            self._send(reply)

        def _send(self, reply: Reply) -> None:
            message = {"role": "assistant", "content": reply.content}
            choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
            completion = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            data = reply.raw if reply.raw is not None else json.dumps(completion).encode()
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has given up, as some tests have it do

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        judge = JudgeServer(f"http://127.0.0.1:{server.server_address[1]}/v1", script)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield judge
        finally:
            server.shutdown()
            thread.join()
