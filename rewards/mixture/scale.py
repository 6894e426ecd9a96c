"""Running mean and standard deviation per task, so that no task drowns another by the spread of its rewards.

With n values seen and a window W, a value x moves the estimates by a = 1 / min(n, W):

    d = x - mean;    mean += a d;    var = (1 - a) (var + a d^2)

Up to W values these are exactly the mean and the population variance (Welford 1962, West 1979); beyond, old values
fade by the factor 1 - 1/W each. A normalised value is (x - mean) / max(sqrt(var), min_std), clipped to +-clip.

The values of one call are all counted first and then normalised alike, so that their order and spacing within a group
stay what they were.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.mixture.settings import Running

STATE_VERSION = 1


@dataclass(slots=True)
class Moments:
    """Estimates for one task."""

    count: int = 0
    mean: float = 0.0
    var: float = 0.0

    def add(self, value: float, window: int) -> None:
        """Count one value, see the module docstring."""
        self.count += 1
        share = 1.0 / min(self.count, window)
        gap = value - self.mean
        self.mean += share * gap
        self.var = (1.0 - share) * (self.var + share * gap * gap)


class RunningScale:
    """The estimates of all tasks. Safe to call from several threads."""

    def __init__(self) -> None:
        self._moments: dict[str, Moments] = {}
        self._lock = threading.Lock()

    def normalise(self, task: str, values: Sequence[float], config: Running, *, update: bool = True) -> list[float]:
        """The values of one call in the scale of their task; without `update` the estimates stay as they are."""
        with self._lock:
            moments = self._moments.setdefault(task, Moments()) if update else self._moments.get(task, Moments())
            if update:
                for value in values:
                    moments.add(value, config.window)
            if moments.count < config.min_count:
                return list(values)
            middle = moments.mean if config.center else 0.0
            spread = max(math.sqrt(moments.var), config.min_std)
        return [min(max((value - middle) / spread, -config.clip), config.clip) for value in values]

    def state_dict(self) -> dict[str, Any]:
        """Plain values that JSON can write; `load_state_dict` of it goes on exactly where this stood."""
        with self._lock:
            tasks = {task: [m.count, m.mean, m.var] for task, m in self._moments.items()}
        return {"version": STATE_VERSION, "tasks": tasks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the place of what was counted so far.

        Raises:
            ValueError: not a state of this class, or numbers that no values can have given.
        """
        if state.get("version") != STATE_VERSION or not isinstance(state.get("tasks"), Mapping):
            raise ValueError(f"this is no state of a mixture of version {STATE_VERSION}: {str(dict(state))[:80]}")
        moments = {}
        for task, numbers in state["tasks"].items():
            count, mean, var = numbers
            if count < 0 or not math.isfinite(mean) or not (math.isfinite(var) and var >= 0):
                raise ValueError(f"the state of task {task!r} is {numbers!r}, which no rewards can have given")
            moments[str(task)] = Moments(int(count), float(mean), float(var))
        with self._lock:
            self._moments = moments
