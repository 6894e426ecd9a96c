"""The folder of a run before anything is in it or changed: whose it is, and whether it can be written."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rl.errors import ConfigError

logger = logging.getLogger(__name__)

LOCK = ".lock"


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the run folder, which is made if need be, for this process alone; a killed holder leaves it free.

    Raises:
        ConfigError: another process holds it (named, with its machine), or it can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("a+")
    except OSError as exc:
        raise ConfigError(f"out {out} can't be written: {exc.strerror or exc}; set `out` to a folder of yours") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise ConfigError(
                f"another process ({holder}) drives the run in {out}, and two would rewind each other's files; "
                "wait for it to end or stop it, or set another `out`"
            ) from exc
        except OSError as exc:
            logger.warning("%s can't be locked (%s); see to it that no other process drives this run", out, exc)
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
