"""SGLang's HTTP server as a process group of its own: found, started, watched, ended.

The group ends with the worker in whatever way that ends, and takes nothing of the worker's with it when it crashes: a
failing scheduler of SGLang kills its parent process, which would be this one if the two shared a process.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rl.errors import EngineError
from rl.rollout.inside_sglang.rl_serve import shared_files

INSIDE = Path(__file__).parent / "inside_sglang"
"""Files that run under the interpreter of SGLang's environment."""
PYTHON = "RL_SGLANG_PYTHON"
"""Environment variable with that interpreter, where the config names none."""
_OF_THIS_PYTHON = ("PYTHONPATH", "PYTHONHOME")
_POLL_S = 0.2
_TAIL_BYTES, _TAIL_LINES, _LINE_CHARS = 65536, 12, 400
_PORT_TAKEN = "address already in use"
_PORTS_TRIED = 3


def find_python(configured: str | None) -> Path:
    """The interpreter of SGLang's environment.

    Raises:
        EngineError: there is none; says how to make one.
    """
    named = configured or os.environ.get(PYTHON)
    places = [Path(named)] if named else [root / ".venv-sglang/bin/python" for root in _roots()]
    for place in places:
        if place.is_file():
            return place.absolute()
    raise EngineError(
        f"no Python of an SGLang environment at {' or '.join(map(str, places))}. SGLang has an environment of its own, "
        "since its versions of other packages clash with vLLM's: `make install-sglang` makes it, or set "
        f"rollout.engine.sglang.python (or {PYTHON}) to the interpreter of another"
    )


def _roots() -> list[Path]:
    """The working directory and the checkout that this file belongs to."""
    return list(dict.fromkeys([Path.cwd(), Path(__file__).parents[2]]))


class SglangServer:
    """A running server. Blocks in the constructor until it takes requests.

    Args:
        arguments: of SGLang's command line; without host, port and key.
        environment: added to this process's own.
        ready: whether the server at a URL, asked with a key, takes requests.
        start_s: how long that may take.

    Raises:
        EngineError: the server ended, or was not ready in time; with the last lines of its log.
    """

    def __init__(
        self,
        python: Path,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        ready: Callable[[str, str], bool],
        start_s: float,
    ) -> None:
        self.key = secrets.token_hex(16)
        self._folder = Path(tempfile.mkdtemp(prefix="rl-sglang-"))
        self._log = self._folder / "log"
        self._shared: set[str] = set()
        self._said: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Paths of this interpreter's packages are none of the other's. SGLang has sockets below TMPDIR.
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THIS_PYTHON}
        self._environment = {**inherited, **environment, "TMPDIR": str(self._folder)}
        try:
            for attempt in range(_PORTS_TRIED):
                try:
                    self._start(python, arguments, ready, start_s)
                    self._shared = shared_files(self.group)
                    return
                except EngineError as exc:
                    # Between the choice of a port and its use another program may have taken it.
                    if _PORT_TAKEN not in str(exc) or attempt + 1 == _PORTS_TRIED:
                        raise
        except BaseException:
            self.close()
            raise

    @property
    def group(self) -> int:
        """Process group, and pid of its leader."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """The end of the server's log: of its last exception, if there is one, else its last lines; kept by `close`."""
        if self._said is not None:
            return self._said
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return "its log is gone"
        lines = [line[:_LINE_CHARS] for line in lines if line.strip()]
        errors = [i for i, line in enumerate(lines) if _ends_traceback(lines, i)]
        start = errors[-1] if errors else max(0, len(lines) - _TAIL_LINES)
        return "\n".join(lines[start : start + _TAIL_LINES]) or "its log is empty"

    def kill(self) -> None:
        """End every process of the group at once."""
        if self._process is not None:
            self._shared |= shared_files(self.group)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.group, signal.SIGKILL)

    def close(self) -> None:
        """`kill`, and leave nothing behind. A second call does nothing."""
        if self._said is not None:
            return
        self.kill()
        self._said = self.last_words()
        if self._process is not None:
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._shared |= shared_files(self.group)  # what it made while it was killed
        shutil.rmtree(self._folder, ignore_errors=True)
        for path in self._shared:
            Path(path).unlink(missing_ok=True)

    def _start(self, python: Path, arguments: Sequence[str], ready: Callable[[str, str], bool], start_s: float) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [str(python), str(INSIDE / "rl_serve.py"), *arguments, "--host", "127.0.0.1", "--port", str(port)]
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._process = process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which is seen below
            process.stdin.write(f"{self.key}\n".encode())
            process.stdin.flush()
        deadline = time.monotonic() + start_s
        while not ready(self.url, self.key):
            if not self.alive:
                self.kill()
                raise EngineError(
                    f"SGLang's server ended with status {process.returncode}; it said:\n{self.last_words()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise EngineError(
                    f"SGLang's server was not ready after {start_s:g} s; raise rollout.engine.sglang.start_s if it was "
                    f"still at it. The end of its log:\n{self.last_words()}"
                )
            time.sleep(_POLL_S)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _ends_traceback(lines: Sequence[str], i: int) -> bool:
    """Whether line i is what an exception says, right below the stack of its traceback."""
    return i > 0 and lines[i - 1].startswith("    ") and not lines[i].startswith((" ", "\t")) and ":" in lines[i]
