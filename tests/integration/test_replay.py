"""A recorded step, done again on the learner alone, is the step to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rl import train
from rl.recording import STEP, step_folder
from rl.replay import WEIGHTS, replay
from tests.integration.support import Paths, train_config

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_replayed_step_is_the_recorded_one(cluster: None, paths: Paths, tmp_path: Path, ranks: int) -> None:
    """The first step, which starts from the model's folder, and a later one, which has momenta; two updates each. The
    run was resumed since with more steps, and so with another schedule."""
    changes = {
        "steps": 3,
        "stall_timeout_s": 600,
        "record__steps": [1, 3],
        "learner__ranks": ranks,
        "algo__updates_per_step": 2,
        "algo__max_staleness": 1,
        "learner__optimizer__schedule": "linear",
    }
    config = train_config(paths, tmp_path / "run", **changes)
    out = train.run(config)
    # Of 4 steps the third has another learning rate than of 3; what was recorded stays as it was made.
    train.run(config.model_copy(update={"steps": 4}), resume=True)
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for step in (1, 3):
        rows = {row.name: row for row in replay(out, step)}
        assert [row for row in rows.values() if not row.same] == []
        assert rows["loss"].replayed == metrics[step - 1]["loss"]
        assert rows["grad_norm"].replayed == metrics[step - 1]["grad_norm"] > 0
        assert rows[WEIGHTS].replayed
    outcome = json.loads((step_folder(out, 3) / STEP).read_text())
    trained = [json.loads(line) for line in (out / "fates.jsonl").read_text().splitlines()]
    assert sorted(group["uid"] for group in outcome["groups"]) == sorted(
        row["uid"] for row in trained if row["fate"] == "trained" and row["step"] == 3
    )

    # With other behaviour logprobs of one completion it is not the step any more.
    file = step_folder(out, 3) / "rank_0.npz"
    with np.load(file) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["0/0/logprobs/0"] -= np.float32(0.01)
    np.savez_compressed(file, **changed)  # type: ignore[arg-type]
    assert any(not row.same for row in replay(out, 3))
