"""A run whose workers are added and drained under way, and whose number is another when it is resumed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rl.control import ask
from rl.metrics.files import read_metrics
from rl.run_io import latest_checkpoint
from tests.integration.faults.accounts import fates_of
from tests.integration.process import WAIT_S, Process, until, worker_states
from tests.integration.support import MAX_DELTA, Paths, train_config

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]


def drained(out: Path) -> list[str]:
    """Who is gone, as the complete lines of the timeline say."""
    lines = (out / "timeline.jsonl").read_text().split("\n")[:-1]
    return [row["actor"] for row in map(json.loads, lines) if row["phase"] == "drain"]


def test_workers_come_and_go(paths: Paths, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = {"algo__max_staleness": 2, "rollout__workers": 1, "rollout__cpus_per_worker": 0.5, "stall_timeout_s": 600}
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(train_config(paths, out, steps=100_000, **changes).model_dump(mode="json")))
    run = Process(config)
    run.reach(out, 1)
    said = ask(out, {"do": "add"}, wait_s=WAIT_S)["said"]
    assert said == ["rollout-1: starting, and serves once it has the current weights"]
    until(lambda: worker_states(out) == {"rollout-0": "serving", "rollout-1": "serving"})
    ask(out, {"do": "drain", "names": ["rollout-0"]}, wait_s=WAIT_S)
    until(lambda: worker_states(out) == {"rollout-1": "serving"})
    # Half a CPU is free again: one more fits, and one waits for a node that never comes.
    assert len(ask(out, {"do": "add"}, wait_s=WAIT_S)["said"]) == 1
    until(lambda: worker_states(out) == {"rollout-1": "serving", "rollout-2": "serving"})
    assert "no room for it now" in ask(out, {"do": "add"}, wait_s=WAIT_S)["said"][1]
    assert worker_states(out)["rollout-3"] == "starting"
    ask(out, {"do": "drain", "names": ["rollout-3"]}, wait_s=WAIT_S)
    until(lambda: drained(out) == ["rollout-0", "rollout-3"])
    assert "rollout-3" not in worker_states(out)
    ask(out, {"do": "add", "kind": "reward"}, wait_s=WAIT_S)
    until(lambda: worker_states(out, "reward") == {"reward-0": "serving", "reward-1": "serving"})
    seen = len(read_metrics(out).rows)
    run.reach(out, seen + 2)
    run.send(signal.SIGTERM)
    code, text = run.end()
    assert code == 75, text

    rows = read_metrics(out).rows
    assert {row["workers/rollout"] for row in rows} == {1.0, 2.0} and rows[-1]["workers/reward"] == 2.0
    assert all(row["faults/replaced"] == 0 and row["staleness/max"] <= 2 for row in rows)
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)  # who joined serves the right weights
    timeline = [json.loads(line) for line in (out / "timeline.jsonl").read_text().splitlines()]
    assert [row["actor"] for row in timeline if row["phase"] == "join"][:2] == ["rollout-1", "rollout-2"]
    assert {"rollout-0", "rollout-1", "rollout-2"} <= {row["actor"] for row in timeline if row["phase"] == "generate"}

    last = latest_checkpoint(out).state["step"]
    code, text = Process(config, "--resume", f"steps={last + 2}", "rollout.workers=2", "rewards.workers=2").end()
    assert code == 0, text
    assert "rollout.workers: 1 -> 2" in text
    assert [row["workers/rollout"] for row in read_metrics(out).rows[-2:]] == [2.0, 2.0]
    fates = fates_of(out)
    assert sorted(row["uid"] for row in fates) == list(range(len(fates)))
    assert Counter(row["fate"] for row in fates)["trained"] == 4 * (last + 2)
    assert not [row for row in fates if row["fate"] == "failed"]
