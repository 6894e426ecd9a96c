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
from tests.integration.faults.injector import KINDS, Injector
from tests.integration.support import MAX_DELTA, Paths, train_config

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
    _assert_sound(out, steps, config.algo.prompts_per_step)
    down = [row for row in map(json.loads, (out / "timeline.jsonl").read_text().splitlines()) if row["phase"] == "down"]
    assert len(down) == len(faults)


def _assert_sound(out: Path, steps: int, prompts_per_step: int) -> None:
    """Every step was made once and within the bound, and every prompt that was admitted has one fate."""
    rows = read_metrics(out).rows
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert all(row["staleness/max"] <= 2 for row in rows)
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)  # who came back serves the right weights
    fates = json.loads((out / "summary.json").read_text())["fates"]
    ended = [json.loads(line) for line in (out / "fates.jsonl").read_text().splitlines()]
    assert sorted(row["uid"] for row in ended) == list(range(fates["admitted"]))
    counts = Counter(row["fate"] for row in ended)
    assert counts["trained"] == steps * prompts_per_step
    assert fates["admitted"] == sum(counts.values())
    assert counts["failed"] == 0  # a dead worker is nobody's wrong answer
    print(f"{steps} steps; fates: {fates}")
