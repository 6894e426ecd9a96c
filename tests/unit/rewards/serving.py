"""A real service in a process of its own, for the tests of the service, of its client and of the examples."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[3]
START_S = 60.0
TOKEN = "a-token-for-tests-0123456789"

WAITS = '''
"""Grades 1, but not before the file that the completion names is there."""
import os, time
from rewards.base import graded

def verify(completion, answer, *, prompt=None, sample=None):
    with open(completion + ".begun", "a") as file:
        file.write("x")
    while not os.path.exists(completion):
        time.sleep(0.005)
    return graded(1.0)
'''


@dataclass(frozen=True)
class Served:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]

    def get(self, path: str, **options: object) -> httpx.Response:
        return httpx.get(self.url + path, trust_env=False, timeout=30, **options)  # type: ignore[arg-type]

    def post(self, path: str, body: object = None, **options: object) -> httpx.Response:
        return httpx.post(self.url + path, json=body, trust_env=False, timeout=60, **options)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def served(*arguments: str, port: int | None = None, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """`rewards serve` with these arguments, once it answers; killed afterwards if it still runs."""
    port = port or free_port()
    command = [sys.executable, "-m", "rewards", "serve", "--port", str(port), "--workers", "2", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE)
    service = Served(f"http://127.0.0.1:{port}", process)
    try:
        wait_for_start(service)
        yield service
    finally:
        process.kill()
        process.communicate()


def wait_for_start(service: Served) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            service.get("/healthz")
            return
        except httpx.TransportError:
            code = service.process.poll()
            assert code is None, f"the service ended with {code}: {service.process.communicate()[1].decode()}"
            assert time.monotonic() < end, "the service does not answer"
            time.sleep(0.05)


def wait_for_file(path: Path, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
