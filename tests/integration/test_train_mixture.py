"""`rl train` with a mixture of verifier, format, length and judge, normalised per task, through the real loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rl import train
from rl.metrics.files import MIXTURE, read_evals, read_fates, read_metrics
from tests.integration.support import Paths, train_config
from tests.unit.rewards.judge_server import Call, Reply, score, serve

pytestmark = pytest.mark.timeout(300)

STEPS = 3
WEIGHTS = {"accuracy": 1.0, "form": 0.25, "length": 0.25, "judge": 0.5}
VERIFIED = {
    "reward": {
        "weighted": [
            {"name": "accuracy", "verifier": "auto", "weight": WEIGHTS["accuracy"]},
            {"name": "form", "verifier": "format", "weight": WEIGHTS["form"]},
            {
                "name": "length",
                "length": {"unit": "characters", "high": 20, "fade_high": 40},
                "weight": WEIGHTS["length"],
            },
            {"name": "judge", "judge": "default", "weight": WEIGHTS["judge"]},
        ]
    },
    "normalise": {"running": {"min_count": 8}},
}


def test_a_run_with_a_mixture(cluster: None, paths: Paths, tmp_path: Path) -> None:
    def script(call: Call, number: int) -> Reply:
        return score(1)  # it likes every answer: only completions without one get 0

    with serve(script) as server:
        judge = {"url": server.url, "model": "m", "cache": "judge.sqlite", "concurrency": 2}
        tasks = {"count*": "verified", "arithmetic": {"reward": {"name": "rule", "verifier": "auto"}}}
        mixture = {"judges": {"default": judge}, "recipes": {"verified": VERIFIED}, "tasks": tasks}
        file = tmp_path / "mixture.yaml"
        file.write_text(yaml.safe_dump(mixture))
        settings = {"mixture": str(file), "root": str(tmp_path), "workers": 2}
        changes = {
            "steps": STEPS,
            "data__eval": paths.eval,
            "evaluation__k": 2,
            "stall_timeout_s": 200,
            "rewards": settings,
        }
        config = train_config(paths, tmp_path / "run", **changes)
        assert train.check(config) == []
        out = train.run(config)
        asked, most = len(server.calls), server.most_at_once
    rows = read_metrics(out).rows
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        parts = {name: row[f"component/{name}"] for name in WEIGHTS}
        assert all(0 <= value <= 1 for value in parts.values())
        # The recipe is linear, and so are means: what is logged is the value before it was normalised.
        expected = sum(weight * parts[name] for name, weight in WEIGHTS.items()) / sum(WEIGHTS.values())
        assert row["reward/counting"] == pytest.approx(expected)
        assert row["accuracy/counting"] == pytest.approx(parts["accuracy"])
        assert row["graders/failed"] == 0 and row["grad_norm"] > 0
    for row in rows:
        assert row.get("accuracy/arithmetic") == row.get("component/rule") == row.get("reward/arithmetic")
    assert asked > 0 and most <= 2, "one judge for both workers, within its limit"
    assert (tmp_path / "judge.sqlite").is_file()
    reasons = {row.reason for row in read_fates(out).rows if row.fate == "filtered"}
    assert reasons <= {"all_right", "all_wrong", "zero_variance"}
    # Evaluations grade by the answer type alone: 0 or 1, two attempts each.
    for result in read_evals(out):
        assert {reward for example in result.examples for reward in example.rewards} <= {0.0, 1.0}
    state = json.loads((out / "checkpoints" / f"step_{STEPS:06d}" / "driver.json").read_text())["rewards"]
    assert len(state) == 2 and all(set(part["tasks"]) == {"counting"} for part in state)
    assert yaml.safe_load((out / MIXTURE).read_text())["tasks"]["count*"] == "verified"
