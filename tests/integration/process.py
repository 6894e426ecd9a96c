"""`rl train` as a process that tests watch, signal and wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rl.control import ask
from tests.integration.support import marked_processes

END_S = 180
"""From the signal, or the last step, to the end of everything that came with a run, on a busy machine."""

WAIT_S = 400
"""For a worker that starts or goes, on a busy machine."""


def until(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.2)


def worker_states(out: Path, kind: str = "rollout") -> dict[str, str]:
    """State by name, of the workers of a run that goes on."""
    workers = ask(out, {"do": "list"}, wait_s=WAIT_S)["workers"]
    return {row["name"]: row["state"] for row in workers if row["kind"] == kind}


class Process:
    """`rl train` on a cluster of its own, or on that at `address`, in a session of its own as a shell's job is."""

    def __init__(self, config: Path, *arguments: str, address: str = "") -> None:
        environment = {**os.environ, "RAY_ADDRESS": address}
        self._joined = bool(address)
        self._before = set(marked_processes())
        self._output = os.memfd_create("output")  # not a pipe: it is read while the run goes on, and whole at the end
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rl", "train", str(config), *arguments],
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )

    def reach(self, out: Path, step: int) -> None:
        """Wait until a step's row is written."""
        file = out / "metrics.jsonl"
        while not file.exists() or file.read_text().count("\n") < step:
            assert self._process.poll() is None, self._text()
            time.sleep(0.05)

    def await_text(self, text: str) -> None:
        """Wait until the run has printed it."""
        while text not in self._text():
            assert self._process.poll() is None, self._text()
            time.sleep(0.05)

    def send(self, number: signal.Signals, group: bool = False) -> None:
        """A signal to the process, or as the terminal sends Ctrl-C, to its whole group."""
        os.killpg(self._process.pid, number) if group else os.kill(self._process.pid, number)

    def end(self) -> tuple[int, str]:
        """(exit code, what it printed), once all processes that came with it are gone."""
        self._process.wait(timeout=END_S)
        limit = time.monotonic() + END_S
        while left := self._left():
            assert time.monotonic() < limit, f"left behind: {left}"
            time.sleep(0.1)
        return self._process.returncode, self._text()

    def _text(self) -> str:
        return os.pread(self._output, os.fstat(self._output).st_size, 0).decode()

    def _left(self) -> dict[int, str]:
        """Of a cluster that others own only the actors: nodes may have joined it under way."""
        new = {pid: name for pid, name in marked_processes().items() if pid not in self._before}
        if self._joined:
            return {pid: name for pid, name in new.items() if name.startswith("ray::") and "IDLE" not in name}
        return new
