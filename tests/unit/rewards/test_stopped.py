"""Processes of a pool that are stopped (SIGSTOP): they run no code of their own, and must neither block it nor stay."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from rewards import Request, RewardPool, worker

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def stop(pid: int) -> None:
    """Stop a process, and wait until it is."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_batch_that_an_idle_worker_does_not_take_is_graded_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 requests a pool of one worker sends 5 at once: 2 MB, ten times what the socket holds."""
    monkeypatch.setattr(worker, "SEND_TIMEOUT_S", 0.25)
    with RewardPool(1, 60.0, preload=["number"]) as pool:
        assert pool.score("<answer>5</answer>", "5", "number").value == 1.0
        (stopped,) = pool._lanes._live
        stop(stopped.pid)
        texts = [f"{' ' * 400_000}<answer>{number}</answer>" for number in range(8)]
        call = pool._submit([Request(text, "5", "number") for text in texts])
        assert [result.value for result in call.future.result(timeout=60)] == [0.0] * 5 + [1.0] + [0.0] * 2
        assert stopped.reaped and stopped not in pool._lanes._live
