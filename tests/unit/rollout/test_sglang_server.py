"""The process group of an SGLang server, with a small stand-in for SGLang itself: start, key, death, what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from rl.errors import EngineError
from rl.rollout.sglang_client import is_ready
from rl.rollout.sglang_server import PYTHON, SglangServer, find_python

SGLANG = {
    "__init__.py": "",
    "srt/__init__.py": "",
    "srt/plugins.py": "def load_plugins(): pass",
    "srt/utils.py": "def kill_process_tree(pid, include_parent): pass",
    "srt/server_args.py": """
class ServerArgs(dict):
    tokenizer_worker_num = 1

def prepare_server_args(words): return ServerArgs(zip(words[::2], words[1::2]))
""",
    "srt/entrypoints/__init__.py": "",
    "srt/entrypoints/http_server.py": """
import mmap, os, subprocess, sys, tempfile
from http.server import BaseHTTPRequestHandler, HTTPServer

def launch_server(args, init_tokenizer_manager_func):
    if os.environ.get("FAIL") == "raise":
        raise RuntimeError("no such model")
    if os.environ.get("FAIL") == "port" and not os.path.exists(os.environ["SEEN"]):
        open(os.environ["SEEN"], "w").close()
        sys.exit("[Errno 98] address already in use")
    child = subprocess.Popen(["sleep", "600"])
    open(os.path.join(tempfile.gettempdir(), "socket"), "w").close()
    shared = open(os.environ["SHARED"], "wb+")
    shared.write(b"0" * 4096)
    shared.flush()
    mapped = mmap.mmap(shared.fileno(), 0)
    open(f"/dev/shm/sgl_shm_mm_{os.getpid()}_ab12", "w").close()  # an image on its way: nobody has it open
    print("child", child.pid, flush=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == "Bearer " + args["--api-key"]
            self.send_response(200 if known and os.environ.get("FAIL") != "late" else 503)
            self.end_headers()
        def log_message(self, *_): pass

    HTTPServer((args["--host"], int(args["--port"])), Handler).serve_forever()
""",
}
PROGRAM = """
import os, sys
from pathlib import Path
from rl.rollout.sglang_client import is_ready
from rl.rollout.sglang_server import SglangServer
server = SglangServer(Path(sys.executable), [], {"PYTHONPATH": sys.argv[1]}, is_ready, 60)
print(server.group, server._folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A folder with the stand-in."""
    for name, text in SGLANG.items():
        file = tmp_path / "site" / "sglang" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(tmp_path / "site")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stand-in maps, as SGLang does."""
    path = Path(f"/dev/shm/sglang_{uuid.uuid4().hex}.shm")
    monkeypatch.setenv("SHARED", str(path))
    return path


def start(package: str, start_s: float = 60, **environment: str) -> SglangServer:
    return SglangServer(Path(sys.executable), [], {"PYTHONPATH": package, **environment}, is_ready, start_s)


def images_of(group: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"sgl_shm_mm_{group}_*"))


def wait_gone(group: int) -> None:
    deadline = time.monotonic() + 30
    while any(os.getpgid(p.pid) == group for p in psutil.process_iter() if _lives(p)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    try:
        os.getpgid(process.pid)
        return process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def test_a_server_starts_and_ends(package: str, shared: Path) -> None:
    server = start(package)
    group, folder = server.group, server._folder
    assert server.alive and is_ready(server.url, server.key)
    assert not is_ready(server.url, "another key")
    assert server.key not in " ".join(psutil.Process(group).cmdline())
    assert server.last_words().startswith("child ")
    assert shared.exists() and images_of(group)
    assert (folder / "socket").exists()  # its own temporary files are in the folder, which others can't look into
    assert folder.stat().st_mode & 0o077 == 0
    server.close()
    wait_gone(group)
    assert not server.alive and not folder.exists() and not shared.exists() and not images_of(group)
    server.close()


@pytest.mark.parametrize("stopped", [False, True], ids=["server runs", "server is stopped"])
def test_a_killed_worker_leaves_nothing(package: str, shared: Path, stopped: bool) -> None:
    """Not even when the server, which is told by a pipe, can't read it."""
    worker = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, package], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    group, folder = worker.stdout.readline().split()
    # The server, its child, and the guard.
    assert len([p for p in psutil.process_iter() if _lives(p) and os.getpgid(p.pid) == int(group)]) == 3
    if stopped:
        os.kill(int(group), signal.SIGSTOP)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_gone(int(group))
    assert not Path(folder).exists() and not shared.exists() and not images_of(int(group))


def test_what_a_killed_server_leaves_is_removed_and_its_words_are_kept(package: str, shared: Path) -> None:
    server = SglangServer(Path(sys.executable), [], {"PYTHONPATH": package}, is_ready, 60)
    os.killpg(server.group, signal.SIGKILL)
    server.close()
    assert not shared.exists() and not server._folder.exists() and not images_of(server.group)
    assert server.last_words().startswith("child ")
    server.close()


def test_why_it_did_not_start(package: str, shared: Path) -> None:
    with pytest.raises(EngineError, match=r"ended with status 1; it said:\nRuntimeError: no such model$"):
        start(package, FAIL="raise")
    with pytest.raises(EngineError, match=r"not ready after 3 s; raise rollout\.engine\.sglang\.start_s .*\nchild \d+"):
        start(package, start_s=3, FAIL="late")
    assert not shared.exists()


def test_a_port_that_was_taken_meanwhile(package: str, shared: Path, tmp_path: Path) -> None:
    server = start(package, FAIL="port", SEEN=str(tmp_path / "seen"))
    assert server.alive
    server.close()


def test_where_the_interpreter_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError, match=r"no Python of an SGLang .* at /nowhere/python.*make install-sglang"):
        find_python("/nowhere/python")
    own = tmp_path / ".venv-sglang/bin/python"
    own.parent.mkdir(parents=True)
    own.touch()
    assert find_python(None) == own
    monkeypatch.setenv(PYTHON, sys.executable)
    assert find_python(None) == Path(sys.executable)
    assert find_python(str(own)) == own
