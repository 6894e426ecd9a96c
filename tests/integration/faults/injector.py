"""Kills and hangs the processes of a run from outside, at seeded random moments. The run does not cooperate."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.support import marked_processes


@dataclass(frozen=True)
class Fault:
    """A signal to one of the processes whose command holds `victim`."""

    victim: str
    signal: signal.Signals

    def __str__(self) -> str:
        return f"{self.signal.name} to {self.victim}"


KILL_ROLLOUT = Fault("ray::RolloutWorker", signal.SIGKILL)
HANG_ROLLOUT = Fault("ray::RolloutWorker", signal.SIGSTOP)
KILL_REWARD = Fault("ray::RewardWorker", signal.SIGKILL)
HANG_REWARD = Fault("ray::RewardWorker", signal.SIGSTOP)
KINDS = (KILL_ROLLOUT, HANG_ROLLOUT, KILL_REWARD, HANG_REWARD)


@dataclass
class Injector:
    """Injects `faults` one after the other into the run at `out`, in a thread.

    Each comes a random part of a step after the step in which the one before was repaired.
    """

    out: Path
    faults: Sequence[Fault]
    seed: int = 0
    injected: list[tuple[int, str]] = field(default_factory=list)
    """(step, fault) of each."""

    def __enter__(self) -> Injector:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._inject, name="faults", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=30)

    def _inject(self) -> None:
        rng = random.Random(self.seed)
        for count, fault in enumerate(self.faults):
            if not self._until(lambda count=count: _row(self.out).get("faults/replaced", -1) >= count):
                return
            step = _row(self.out)["step"]
            if not self._until(lambda step=step: _row(self.out)["step"] > step):
                return
            self._ended.wait(rng.random() * _row(self.out)["time/step_s"])
            victims = sorted(pid for pid, command in marked_processes().items() if fault.victim in command)
            if self._ended.is_set() or not victims:
                return
            os.kill(rng.choice(victims), fault.signal)
            self.injected.append((step + 1, str(fault)))

    def _until(self, condition: Callable[[], bool]) -> bool:
        """False if the run ended first."""
        while not self._ended.is_set():
            if condition():
                return True
            time.sleep(0.05)
        return False


def _row(out: Path) -> dict[str, Any]:
    """The last complete row of metrics, empty before the first step."""
    file = out / "metrics.jsonl"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return json.loads(lines[-1]) if lines else {}
