"""From which checkpoint a stage goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rl.errors import TornCheckpointError
from rl.sft.checkpoints import find
from rl.sft.run import _Stage


def test_from_a_torn_learner_state_a_stage_goes_back_to_the_checkpoint_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        folder = tmp_path / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        state = {"step": step, "data": {"at": step}, "rows": {}, "tokens": 10.0 * step, "skipped": 0, "seconds": step}
        (folder / "driver.json").write_text(json.dumps(state) if step < 3 else "")
    taken_up: list[Any] = []

    def load(folder: Path) -> int:
        if folder.parent.name == "step_000002":
            raise TornCheckpointError(f"{folder}/.metadata is torn: EOFError")
        return 1

    stage = _Stage.__new__(_Stage)
    stage.rank = 0
    stage.strategy = SimpleNamespace(load=load)  # type: ignore[assignment]
    stage.mixture = SimpleNamespace(load_state_dict=taken_up.append)  # type: ignore[assignment]
    found = find(tmp_path)
    assert found.state["step"] == 2
    assert stage._restore(found).folder.name == "step_000001"
    assert (stage.step, taken_up, stage.sums.tokens) == (1, [{"at": 1}], 10.0)
    assert "step_000003/driver.json is torn" in caplog.text and "step_000002/learner/.metadata is torn" in caplog.text
