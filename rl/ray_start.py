"""Starting a Ray of this process's own on a machine that may be busy, or joining one that runs."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import psutil
import ray

from rl.errors import first_lines

logger = logging.getLogger(__name__)

TRIES = 4
END_S = 20.0
"""Seconds that what a try left has to end."""
ANSWER_S = 10.0
"""Seconds in which a Ray to join takes a connection."""


def start_ray(**options: Any) -> None:
    """`ray.init` of a cluster of this process's own, tried several times; raises what the last try raised.

    Its address is "local": without one Ray would join what the last `ray start` on this machine has started, even when
    that is gone. Ray gives its processes 30 s to come up, and no setting for it; on a busy machine they take longer.
    What a try that was too short leaves running is ended before the next.
    """
    for tries_left in reversed(range(TRIES)):
        before = set(psutil.Process().children(recursive=True))
        try:
            ray.init(address="local", **options)
            return
        except Exception as exc:
            late = set(psutil.Process().children(recursive=True)) - before
            for process in late:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(late, timeout=END_S)
            if not tries_left or "timed out" not in str(exc):
                raise
            logger.warning("Ray was not up in time (%s); once more", first_lines(exc, lines=1))


def join_ray(address: str, **options: Any) -> None:
    """`ray.init` of a cluster that runs; Ray itself would call a quarter of an hour where nobody listens.

    Raises:
        OSError: nobody does; or what Ray raises.
    """
    if address == "auto":
        from ray._private import services  # Ray's own search, which takes the word of a file

        address = services.get_ray_address_from_environment(address, None)
    host, _, port = address.rpartition(":")
    if "/" not in host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
    ray.init(address=address, **options)
