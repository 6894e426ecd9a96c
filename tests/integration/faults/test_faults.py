"""Runs whose workers are killed and hung under way: they go on, and every prompt has one fate.

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
from rl.metrics.files import read_metrics
from tests.integration.faults.injector import KINDS, Injector
from tests.integration.support import MAX_DELTA, Paths, train_config

FAULTS = int(os.environ.get("FAULTS", len(KINDS)))
STEPS_PER_FAULT = 15
"""More than a worker takes to come back; a run that ends before its last fault fails the test."""

pytestmark = [pytest.mark.timeout(120 + 90 * FAULTS), pytest.mark.slow]


def test_a_run_survives_whatever_dies(cluster: None, paths: Paths, tmp_path: Path) -> None:
    rng = random.Random(17)
    faults = [*KINDS, *rng.choices(KINDS, k=max(0, FAULTS - len(KINDS)))][:FAULTS]
    steps = STEPS_PER_FAULT * FAULTS
    changes = {"algo__max_staleness": 2, "rollout__workers": 2, "rewards__workers": 2}
    limits = {"ping_every_s": 0.5, "hang_s": 10, "restarts": 3}
    config = train_config(
        paths, tmp_path / "run", steps=steps, **changes, rollout__faults=limits, rewards__faults=limits
    )
    with Injector(Path(config.out), faults) as injector:
        out = train.run(config)

    print(f"injected: {injector.injected}")
    assert [fault for _, fault in injector.injected] == [str(fault) for fault in faults]
    rows = read_metrics(out).rows
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    assert rows[-1]["faults/replaced"] == len(faults)
    assert all(row["staleness/max"] <= 2 for row in rows)
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)  # who came back serves the right weights

    fates = json.loads((out / "summary.json").read_text())["fates"]
    ended = [json.loads(line) for line in (out / "fates.jsonl").read_text().splitlines()]
    assert sorted(row["uid"] for row in ended) == list(range(fates["admitted"]))
    counts = Counter(row["fate"] for row in ended)
    assert counts["trained"] == steps * config.algo.prompts_per_step
    assert fates["admitted"] == sum(counts.values())
    assert counts["failed"] == 0  # a dead worker is nobody's wrong answer
    down = [row for row in map(json.loads, (out / "timeline.jsonl").read_text().splitlines()) if row["phase"] == "down"]
    assert len(down) == len(faults)
