"""A run whose workers are killed and hung under way: it goes on, and every prompt has one fate.

`FAULTS=100` makes the soak test of it (`make soak`).
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from rl import train
from rl.errors import StoppedError
from rl.metrics.files import read_metrics
from tests.integration.faults.accounts import assert_sound, fates_of
from tests.integration.faults.injector import KINDS, Injector
from tests.integration.support import Paths, train_config

FAULTS = int(os.environ.get("FAULTS", len(KINDS)))
MANY = 1_000_000
"""Steps that no run here makes: it is stopped when the last fault is repaired."""

pytestmark = [pytest.mark.timeout(180 + 90 * FAULTS), pytest.mark.slow]


def test_a_run_survives_whatever_dies(cluster: None, paths: Paths, tmp_path: Path) -> None:
    rng = random.Random(17)
    faults = [*KINDS, *rng.choices(KINDS, k=max(0, FAULTS - len(KINDS)))][:FAULTS]
    # A policy that stays as it is: over hundreds of steps it would get too good, or too bad, to leave a group to train.
    changes = {"algo__max_staleness": 2, "rollout__workers": 2, "rewards__workers": 2, "learner__optimizer__lr": 1e-6}
    # The next fault comes within a step of the last repair: a worker may often die before its first call is done.
    limits = {"ping_every_s": 0.5, "hang_s": 10, "restarts": 12}
    config = train_config(
        paths, tmp_path / "run", steps=MANY, **changes, rollout__faults=limits, rewards__faults=limits
    )
    out = Path(config.out)
    with Injector(out, faults) as injector, pytest.raises(StoppedError):
        train.run(config)
    reached = read_metrics(out).rows[-1]
    steps = int(reached["step"]) + 2
    train.run(config.model_copy(update={"steps": steps}), resume=True)

    print(f"injected: {injector.injected}")
    assert Counter(fault for _, fault in injector.injected) == Counter(map(str, faults))
    assert reached["faults/replaced"] == len(faults)
    assert_sound(out, steps)
    print(f"{steps} steps; fates: {Counter(row['fate'] for row in fates_of(out))}")
    down = [row for row in map(json.loads, (out / "timeline.jsonl").read_text().splitlines()) if row["phase"] == "down"]
    assert len(down) == len(faults)
