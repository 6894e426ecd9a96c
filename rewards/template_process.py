"""The worker side of a pool: a template process that has imported the verifiers, and the workers it forks.

The template runs no verifier on anybody's text, so it can't hang; it is single-threaded, so forking it is safe; and a
fork of it is ready in milliseconds where a fresh interpreter needs a second to import SymPy and RDKit. It talks with
the pool over one socket: `fork` (with a worker's socket attached) gives a pid, `reap` waits for a killed worker. When
that socket closes, because the pool was closed or its process died, the template kills its workers and ends; the death
of the pool's process wakes it for that if it was stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from rewards import registry
from rewards.base import RewardResult, failed

_PR_SET_PDEATHSIG = 1
_MAX_DETAIL = 500


def send_message(sock: socket.socket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    sock.sendall(struct.pack("!I", len(data)) + data)


def receive_message(sock: socket.socket) -> dict[str, Any] | None:
    """The next message, or None where the other side is gone."""
    header = _receive_exactly(sock, 4)
    data = _receive_exactly(sock, struct.unpack("!I", header)[0]) if header else None
    return None if data is None else json.loads(data)


def main(control_fd: int) -> None:
    """Run the template until its control socket closes."""
    control = socket.socket(fileno=control_fd)
    _at_parents_end(signal.SIGKILL)  # an import may hang, and never come to look at the socket
    setup = receive_message(control)
    if setup is None or os.getppid() != setup["parent"]:  # it was gone before its end could be told
        return
    sys.path.extend(path for path in setup["path"] if path not in sys.path)
    pid = os.getpid()
    problem = _preload(setup)
    _end_unless(pid)
    # From here on the socket is looked at, unless this process is stopped, and then SIGCONT makes it go on. It is no
    # SIGKILL: there will be workers to be killed, with what they start. And to Linux the end of the thread that started
    # this process is the parent's: that thread waits for the message below, and may end once it has it.
    _at_parents_end(signal.SIGCONT)
    send_message(control, {"problem": problem})
    if problem is not None:
        return
    gc.collect()
    gc.freeze()  # the workers share these pages; a collection that touched them would copy them
    workers: set[int] = set()
    try:
        _serve_pool(control, setup, workers)
    finally:
        for pid in workers:
            kill_tree(pid)


def kill_tree(pid: int) -> None:
    """SIGKILL a worker and what it started; it must not have been reaped yet, or the pid may be another's."""
    for kill in (os.killpg, os.kill):  # the group exists only once the worker has come as far as setsid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _preload(setup: Mapping[str, Any]) -> str | None:
    """Import the verifiers named, and those of `optional` whose libraries are there; returns what went wrong."""
    for name in [*setup["preload"], *setup["optional"]]:
        try:
            registry.warm_up(name, setup["plugins"])
        except ImportError as exc:
            if name in setup["preload"]:
                return f"the verifier {name!r} can't be imported: {exc}"
        except Exception as exc:  # a plug-in that fails at import: reported to the pool, which raises
            return f"the verifier {name!r} failed at import: {type(exc).__name__}: {exc}"
    return None


def _serve_pool(control: socket.socket, setup: Mapping[str, Any], workers: set[int]) -> None:
    while (message := receive_message(control)) is not None:
        if message["do"] == "fork":
            _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            pid = os.fork()
            if pid == 0:
                control.close()
                _work(descriptors[0], setup)
            os.close(descriptors[0])
            workers.add(pid)
            send_message(control, {"pid": pid})
        else:
            pid = message["pid"]
            status = None
            if pid in workers:
                workers.discard(pid)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            send_message(control, {"status": status})


def _work(descriptor: int, setup: Mapping[str, Any]) -> None:
    """The body of a forked worker; never returns."""
    code = 1
    try:
        os.setsid()  # so that a kill takes along what a verifier has started
        _restrict(setup["memory_mb"])
        _serve_requests(Connection(descriptor), setup["plugins"])
        code = 0
    finally:
        os._exit(code)  # no clean-up of the template's state in the fork


def _at_parents_end(number: signal.Signals) -> None:
    """Have Linux send this process a signal when its parent is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def _restrict(memory_mb: int) -> None:
    _at_parents_end(signal.SIGKILL)  # even in the middle of a computation that never comes back to Python
    limit = memory_mb * 2**20
    # The address space, libraries included (a quarter GiB with RDKit and SymPy): only it bounds every kind of memory.
    with contextlib.suppress(ValueError, OSError):  # macOS refuses; the pool's deadline still holds there
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _serve_requests(connection: Connection, plugins: Mapping[str, str]) -> None:
    """Grade batches of numbered, pickled requests; each result is reported at once: each request has its own deadline.

    A reply carries the number of its request, by which the pool knows it. While a batch is graded the pool may recall
    what is left of it, as (number, last request still wanted), which gets a reply too.
    """
    pid = os.getpid()
    recalls = select.poll()
    recalls.register(connection.fileno(), select.POLLIN)
    while True:
        try:
            message = pickle.loads(connection.recv_bytes())
            recall: tuple[int, int] | None = None
            if isinstance(message, tuple):
                recall, message = message, []
            for number, payload in message:
                if recall is None and recalls.poll(0):
                    recall = pickle.loads(connection.recv_bytes())
                if recall is not None and number > recall[1]:
                    break
                result = _grade(payload, plugins)
                _end_unless(pid)
                # JSON and not pickle: what a worker says, after hostile text went through it, can't run code in the
                # trainer
                reply = [number, result.value, result.status, result.components, result.detail[:_MAX_DETAIL]]
                connection.send_bytes(json.dumps(reply).encode())
            _reap_ended()
            if recall is not None:
                connection.send_bytes(json.dumps([recall[0]]).encode())
        except EOFError:
            return


def _reap_ended() -> None:
    """Wait for children of verifiers that have ended, which would stay as zombies for the life of this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_unless(pid: int) -> None:
    """End this process if it is not `pid` but a fork of it that came back from a verifier's code.

    It holds the same sockets, so that it would take requests from the one that is meant, and answer them too.
    """
    if os.getpid() != pid:
        os._exit(0)


def _grade(payload: bytes, plugins: Mapping[str, str]) -> RewardResult:
    try:
        completion, answer, answer_type, prompt, sample = pickle.loads(payload)
        given = {"prompt": prompt, "sample": sample, "plugins": plugins}
        # Without a cap: the pool has one of its own, before anything is sent.
        return registry.score(completion, answer, answer_type, **given, max_chars=sys.maxsize)
    except BaseException as exc:  # SystemExit and the like included: one request fails, the worker goes on
        return failed("error", f"{type(exc).__name__}: {exc!s:.300}")


def _receive_exactly(sock: socket.socket, count: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < count:
        chunk = sock.recv(count - len(chunks))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)
