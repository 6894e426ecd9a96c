"""Starts SGLang's HTTP server, and ends it with the rollout worker that asked for it.

Runs under the interpreter of SGLang's environment, where this project is not installed. The arguments are SGLang's own.
The worker holds the other end of standard input: it writes one line, the key that requests must carry (arguments can
be read by everyone on the machine), and never closes it while it lives. So end of file means that the worker has ended,
in whatever way. It made this process the leader of a process group, which is then killed as a whole, by a guard: a
process of the group that does nothing else, so that it gets to it even when the leader hangs.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

_SHARED = "/dev/shm/sgl"


def main() -> None:
    key = sys.stdin.readline().strip()
    if os.fork() == 0:  # before anything large is imported, and any thread runs
        _guard()
    import rl_ping
    from sglang.srt.entrypoints.http_server import launch_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    load_plugins()
    server_args = prepare_server_args([*sys.argv[1:], "--api-key", key])
    if server_args.tokenizer_worker_num != 1:
        sys.exit("--tokenizer-worker-num must be 1: servers with more ask for no key, and do not tell if they hang")
    try:
        launch_server(server_args, init_tokenizer_manager_func=rl_ping.tokenizer_manager)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def members(group: int) -> list[int]:
    """Processes of the group."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process may end while it is looked at
            if os.getpgid(int(folder.name)) == group:
                found.append(int(folder.name))
    return found


def shared_files(group: int) -> set[str]:
    """Files of shared memory of the group's processes, which SGLang leaves when it is killed: those that one has open,
    and images on their way from the leader, whose pid is in their names, to a scheduler."""
    found = {str(path) for path in Path(_SHARED).parent.glob(f"{Path(_SHARED).name}_shm_*_{group}_*")}
    for pid in members(group):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            found |= {line[line.index(_SHARED) :] for line in lines if _SHARED in line}
    return {path for path in found if not path.endswith("(deleted)")}


def _guard() -> None:
    """Wait for the worker's end. One that outlives its server kills what is left of the group, and so the guard."""
    try:
        while os.read(0, 4096):
            pass
        group = os.getpgid(0)
        files = shared_files(group)
        for pid in members(group):
            if pid != os.getpid():
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        for path in files | shared_files(group):  # the leader may have made some meanwhile
            with suppress(OSError):
                os.unlink(path)
        # Nobody else is left to remove the worker's folder for this server, where sockets and logs are. `tempfile`
        # would name another one where this can't be written to, say because the disk is full.
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    finally:
        os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":  # SGLang's processes import this file again
    main()
