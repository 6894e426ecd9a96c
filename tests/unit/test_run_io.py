"""What a run writes beside its parts' own numbers."""

from __future__ import annotations

import time
from contextlib import closing
from types import SimpleNamespace
from typing import Any

from rl.ledger import Ledger
from rl.metrics.files import read_timeline
from rl.metrics.tracker import Tracker
from rl.run_io import RunIO


def test_groups_by_fate_are_those_of_the_step(tmp_path):
    rows: list[dict[str, Any]] = []
    tracker = SimpleNamespace(log=lambda step, row: rows.append(row))
    io = RunIO(SimpleNamespace(), tracker, SimpleNamespace(update=lambda row: None), time.time())  # type: ignore[arg-type]
    ledger = Ledger(lambda row: None)
    for sample in "abcdef":
        ledger.admit(sample, 0)
    ledger.close(0, "filtered", "all_wrong", 0)
    ledger.close(1, "filtered", "truncated", 0)
    ledger.close(2, "trained", step=1)
    io.step(1, {}, ledger)
    ledger.close(3, "failed", "reward: timeout", 1)
    ledger.close(4, "trained", step=2)
    io.step(2, {}, ledger)
    kinds = ("trained", "filtered", "stale", "failed")
    assert [[row[f"groups/{kind}"] for kind in kinds] for row in rows] == [[1.0, 2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0]]


def test_a_clock_that_was_set_back_ends_no_run(tmp_path):
    with closing(Tracker(tmp_path)) as tracker:
        io = RunIO(SimpleNamespace(), tracker, SimpleNamespace(), started=100.0)  # type: ignore[arg-type]
        io.timeline("rollout-0", "generate", 105.0, 104.0)
    assert [(span.start, span.end) for span in read_timeline(tmp_path).rows] == [(5.0, 5.0)]
