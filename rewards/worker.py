"""The pool's side of its worker processes: start the template, fork workers from it, talk to them, kill them."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rewards.base import RewardResult
from rewards.template_process import kill_tree, receive_message, send_message

START_TIMEOUT_S = 120.0
SEND_TIMEOUT_S = 10.0
"""How long a worker may take nothing of what is sent to it. It reads as soon as it is idle, so it is stopped then."""


class PoolError(RuntimeError):
    """The worker processes can't be started, or the pool is closed."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What every worker of a pool is started with."""

    memory_mb: int
    plugins: Mapping[str, str]
    preload: Sequence[str]
    """Answer types whose verifiers must import."""
    optional: Sequence[str]
    """Answer types whose verifiers are imported if their libraries are installed."""


@dataclass(slots=True, eq=False)
class Worker:
    """One forked worker. Used by one lane; `kill` may come from any thread."""

    pid: int
    connection: Connection
    lock: threading.Lock = field(default_factory=threading.Lock)
    reaped: bool = False
    sent: int = 0
    """Requests so far: each has a number, and its reply the same."""

    def send(self, payloads: Sequence[bytes]) -> list[int]:
        """Hand over packed requests; their numbers, in the order in which the replies come.

        Raises:
            OSError: the worker is gone, or has taken nothing for `SEND_TIMEOUT_S`. It must be replaced: it may have
                part of the message.
        """
        numbers = list(range(self.sent, self.sent + len(payloads)))
        self.sent += len(payloads)
        self.connection.send_bytes(pickle.dumps(list(zip(numbers, payloads, strict=True))))
        return numbers

    def receive(self, number: int, timeout_s: float) -> RewardResult | None:
        """The result of the request `number`, or None after `timeout_s`.

        Raises:
            EOFError: the worker died.
            ValueError: what came is no result, or another request's: no further reply of this worker can be trusted.
        """
        try:
            if not self.connection.poll(timeout_s):
                return None
            replied, value, status, components, detail = json.loads(self.connection.recv_bytes())
        except OSError as exc:
            raise EOFError("the worker's socket broke") from exc
        except TypeError as exc:
            raise ValueError(f"not a result: {exc}") from exc
        if replied != number:
            raise ValueError(f"it is for request {replied!r}, and request {number} was awaited")
        try:
            return RewardResult(value, status, components, detail)
        except (TypeError, AttributeError) as exc:
            raise ValueError(f"not a result: {exc}") from exc

    def recall(self, last: int) -> int:
        """Have it leave what was sent beyond the request `last`; the number of its reply to this.

        Raises:
            OSError: as for `send`.
        """
        number = self.sent
        self.sent += 1
        self.connection.send_bytes(pickle.dumps((number, last)))
        return number

    def settle(self, recalled: int, timeout_s: float) -> bool:
        """Wait until it has left what was recalled; False where it has not, or is gone, and must be replaced."""
        end = time.monotonic() + timeout_s
        try:
            while self.connection.poll(max(0.0, end - time.monotonic())):
                if json.loads(self.connection.recv_bytes())[0] == recalled:
                    return True
        except (OSError, EOFError, ValueError, TypeError, LookupError):
            pass
        return False

    def kill(self) -> None:
        with self.lock:
            if not self.reaped:
                kill_tree(self.pid)


class Template:
    """The template process of a pool, restarted if it dies. Thread-safe.

    It is started as a fresh interpreter by `subprocess`, neither forked nor spawned by `multiprocessing`: the parent is
    often a Ray actor, whose threads and event loop make a fork unsafe and whose main module a spawn would import.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._closed = False
        with self._lock:
            self._start()

    def fork(self) -> Worker:
        """A new worker.

        Raises:
            PoolError: the template is closed, or can't be started again.
        """
        with self._lock:
            for attempt in range(2):
                if self._closed:
                    raise PoolError("the reward pool is closed")
                if self._control is None:
                    self._start()
                try:
                    return self._fork()
                except (OSError, EOFError) as exc:
                    if attempt:
                        raise PoolError(f"the reward pool can't start a worker: {exc}") from exc
                    self._stop()
        raise AssertionError("unreachable")

    def reap(self, worker: Worker) -> int | None:
        """Kill a worker and wait for it; its exit code (negative: the signal), None if the template is gone."""
        worker.kill()
        worker.connection.close()
        with self._lock, worker.lock:
            worker.reaped = True
            if self._control is None:
                return None
            try:
                send_message(self._control, {"do": "reap", "pid": worker.pid})
                reply = receive_message(self._control)
            except OSError:
                self._abandon()
                return None
        return None if reply is None else reply["status"]

    def close(self) -> None:
        """End the template and all its workers, and wait for them."""
        with self._lock:
            self._closed = True
            self._stop()

    def _fork(self) -> Worker:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        try:
            send_message(self._control, {"do": "fork"})
            socket.send_fds(self._control, [b"F"], [theirs.fileno()])
            reply = receive_message(self._control)
            if reply is None:
                raise EOFError("the template process died")
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        # A stopped process reads nothing: a send of more than the socket holds would block for ever.
        limit = struct.pack("@ll", int(SEND_TIMEOUT_S), int(SEND_TIMEOUT_S % 1 * 1e6))
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        return Worker(reply["pid"], Connection(ours.detach()))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parent.parent)
        code = f"import sys; sys.path.insert(0, {root!r}); from rewards.template_process import main; main({{}})"
        with theirs:
            self._process = subprocess.Popen(
                # -P: no script folder on the path, where rewards/numbers.py would hide the standard library's.
                [sys.executable, "-P", "-c", code.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # what a verifier prints is nobody's output
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C in the terminal is for the trainer, which then closes the pool
                env={**os.environ, **_ONE_THREAD},
            )
        self._control = ours
        ours.settimeout(START_TIMEOUT_S)
        try:
            send_message(ours, {**_fields(self._setup), "path": sys.path, "parent": os.getpid()})
            reply = receive_message(ours)
        except OSError as exc:
            self._stop()
            raise PoolError(f"the reward workers did not start within {START_TIMEOUT_S:g} s: {exc}") from exc
        if reply is None or reply["problem"] is not None:
            code_text = describe_exit(self._stop())
            reason = reply["problem"] if reply is not None else f"the template process ended ({code_text}) at import"
            raise PoolError(
                f"the reward workers did not start: {reason}; fix the verifier, or leave it out of the pool"
            )

    def _abandon(self) -> None:
        """End a template that did not answer: what it says later would be taken for the answer to the next question."""
        if self._process is not None:
            self._process.kill()
        self._stop()

    def _stop(self) -> int | None:
        if self._control is not None:
            self._control.close()  # tells the template to kill its workers and to end
            self._control = None
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process = None
        return code


def describe_exit(code: int | None) -> str:
    if code is None:
        return "exit code unknown"
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"


_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
"""A fork of a process with a thread pool is not safe, and one worker is meant to use one core."""


def _fields(setup: WorkerSetup) -> dict[str, Any]:
    return {
        "memory_mb": setup.memory_mb,
        "plugins": dict(setup.plugins),
        "preload": list(setup.preload),
        "optional": list(setup.optional),
    }
