"""The caller's side of one sandbox run: start the launcher, send the job, read the report, end it in time."""

from __future__ import annotations

import contextlib
import fcntl
import marshal
import os
import selectors
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from rewards.sandbox.records import EndedBy, Finished, Report, SandboxUnavailable

SETUP_S = 20.0
"""What a busy machine may need besides the commands: to start, to send files, to clean up."""
_CHUNK = 1 << 18


class Passed:
    """Descriptors that a run has taken over: closed here as soon as the launcher has them, or never will, so that who
    holds their other ends sees when the commands are done with them."""

    def __init__(self, descriptors: Iterable[int]) -> None:
        self.descriptors = tuple(sorted(set(descriptors)))

    def __enter__(self) -> Passed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """May be called twice."""
        descriptors, self.descriptors = self.descriptors, ()
        for descriptor in descriptors:
            os.close(descriptor)


def exchange(argv: Sequence[str], job: Mapping[str, Any], report_bytes: int, passed: Passed) -> Report:
    """Run a job in a launcher started as `argv`; when this returns, no process of it is left.

    Args:
        argv: the launcher's command line, a container runtime around it included.
        job: see `inside/launcher.py`.
        report_bytes: more than the longest report that the limits allow.
        passed: what the job's commands use as stdin or stdout.

    Raises:
        SandboxUnavailable: the launcher can't be started, or reports that it can't set the sandbox up.
    """
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=passed.descriptors,
            env=_launcher_environment(job["mode"]),
            start_new_session=True,  # a Ctrl-C in the terminal is for the caller, which then ends the sandbox
        )
    except OSError as exc:
        raise SandboxUnavailable(f"the sandbox can't be started with {argv[0]!r}: {exc}") from exc
    finally:
        passed.close()
    reader = _ReportReader(report_bytes)
    try:
        data = marshal.dumps(dict(job), 2)  # version 2 is read by every Python, also by a container's
        _talk(process, len(data).to_bytes(8, "big") + data, reader, time.monotonic() + job["wall_s"] + SETUP_S)
    finally:
        code = _end(process)
    return reader.report(code)


def _launcher_environment(mode: str) -> dict[str, str]:
    if mode != "container":
        return {}
    # The runtime's client finds its daemon and its settings by these; nothing of it goes into the container.
    names = ("PATH", "HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "CONTAINER_HOST")
    return {name: os.environ[name] for name in names if name in os.environ}


def _talk(process: subprocess.Popen[bytes], job: bytes, reader: _ReportReader, end: float) -> None:
    """Send the job and read the report at once, until the report ends, the launcher does, or the time is over."""
    assert process.stdin is not None and process.stdout is not None
    unsent = memoryview(job)
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    with contextlib.suppress(OSError):
        fcntl.fcntl(process.stdin.fileno(), fcntl.F_SETPIPE_SZ, _CHUNK)  # fewer turns for large jobs
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while not reader.complete and (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fileobj is process.stdin:
                    try:
                        unsent = unsent[os.write(process.stdin.fileno(), unsent[:_CHUNK]) :]
                    except BrokenPipeError:
                        unsent = memoryview(b"")
                    if not unsent:
                        selector.unregister(process.stdin)  # and left open: closing it ends the sandbox
                else:
                    data = os.read(process.stdout.fileno(), _CHUNK)
                    if not data:
                        return
                    reader.add(data)
        reader.timed_out = not reader.complete


def _end(process: subprocess.Popen[bytes]) -> int:
    """Have the launcher kill what still runs, and wait for it."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        code = process.wait(timeout=SETUP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # its supervisor dies with it
        code = process.wait()
    process.stdout.close()
    return code


@dataclass(slots=True)
class _Output:
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)


class _ReportReader:
    """Takes a report apart; see `inside/frames.py`."""

    def __init__(self, most_bytes: int) -> None:
        self.complete = False
        self.timed_out = False
        self._most = most_bytes
        self._data = bytearray()
        self._problem: str | None = None
        self._started = False
        self._current = _Output()
        self._commands: list[Finished] = []
        self._files: dict[str, bytes] = {}
        self._name = ""
        self._left_out: list[str] = []

    def add(self, data: bytes) -> None:
        self._most -= len(data)
        if self._most < 0:
            raise SandboxUnavailable("the sandbox's report is longer than its limits allow; this is a defect")
        self._data += data
        while len(self._data) >= 9:
            end = 9 + int.from_bytes(self._data[1:9], "big")
            if len(self._data) < end:
                return
            self._take(chr(self._data[0]), bytes(self._data[9:end]))
            del self._data[:end]

    def report(self, launcher_code: int) -> Report:
        """The report; where the sandbox died or was ended under a command, that command is its last."""
        if self._problem is not None:
            raise SandboxUnavailable(self._problem)
        if not self._started:
            reason = "was not ready in time" if self.timed_out else f"ended with exit code {launcher_code}"
            raise SandboxUnavailable(f"the sandbox's launcher {reason}")
        if not self.complete:
            ended_by: EndedBy = "wall" if self.timed_out else "killed"
            output = self._current
            self._commands.append(Finished(-9, ended_by, bytes(output.stdout), bytes(output.stderr), 0.0, 0.0, 0.0))
        return Report(tuple(self._commands), self._files, tuple(self._left_out))

    def _take(self, letter: str, payload: bytes) -> None:
        match letter:
            case "S":
                self._started = True
            case "O":
                self._current.stdout += payload
            case "E":
                self._current.stderr += payload
            case "X":
                self._finish(payload.decode())
            case "N":
                self._name = payload.decode("utf-8", "replace")
            case "F":
                self._files[self._name] = payload
            case "L":
                self._left_out.append(payload.decode("utf-8", "replace"))
            case "P":
                self._problem = payload.decode("utf-8", "replace")
                self.complete = True
            case ".":
                self.complete = True

    def _finish(self, text: str) -> None:
        code, wall, cpu, peak_kb, ended_by = text.split(" ")
        stdout, stderr = bytes(self._current.stdout), bytes(self._current.stderr)
        if not ended_by and int(code) != 0 and stderr.rstrip().rpartition(b"\n")[2].startswith(b"MemoryError"):
            ended_by = "memory"
        peak_mb = int(peak_kb) / 1024
        self._commands.append(
            Finished(int(code), cast(EndedBy, ended_by), stdout, stderr, float(wall), float(cpu), peak_mb)
        )
        self._current = _Output()
