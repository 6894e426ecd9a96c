"""Finished groups go into a checkpoint and come out of it as they were; tokens that are gone do not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray

from rl.batch.plan import GroupShare, UpdateShare
from rl.checkpoint_folder import Checkpoint
from rl.config.train import TrainConfig
from rl.data.store import OrderedPrompts
from rl.errors import DataError
from rl.finished import FOLDER, describe, described, read_groups, share_of, write_groups
from rl.learner.actor import _write_finished
from rl.ledger import Ledger
from rl.mail import Part
from rl.records import ScoredGroup
from rl.run_io import RunIO, finished_groups, latest_checkpoint
from tests.unit.groups import make_group, plain_grades
from tests.unit.test_recording import assert_equal, group


def graded(uid: int) -> ScoredGroup:
    """Of a grader that failed once, with a completion masked out, sampled over a swap."""
    parts = ({"accuracy": 1.0}, {"accuracy": np.float32(0.5)}, {})
    grades = plain_grades((1.0, 0.1 + 0.2, None), components=parts, failure="timeout: 3 s")
    made = make_group(uid, (1.0, None, None), lengths=(2, 5, 7), oldest=3, newest=4)
    return replace(made, grades=grades, meta=replace(made.meta, defects=(None, "garbled", None), image_patches=(16,)))


def test_what_the_driver_knows_is_read_back() -> None:
    groups = [graded(4), graded(7)]
    rows = json.loads(json.dumps(describe(groups)))
    assert described(rows, {4: "payload-4", 7: "payload-7"}) == groups
    assert described(rows, {7: "payload-7"}) == groups[1:]


def test_tokens_are_read_back_but_for_those_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {"a": [group(1, 0), group(2, 1)], "c": [group(4, 0)]}

    def get(column: str) -> Any:
        if column == "b":
            raise ray.exceptions.ObjectLostError("00", None, "")
        return columns[column]

    monkeypatch.setattr(ray, "get", get)
    places = {2: Part("a", 1), 3: Part("b", 0), 4: Part("c", 0)}
    _write_finished(tmp_path, UpdateShare(tuple(GroupShare(part, (), uid) for uid, part in places.items()), 0))
    back = read_groups(tmp_path)
    assert [each.uid for each in back] == [2, 4]
    for ours, theirs in zip(back, (columns["a"][1], columns["c"][0]), strict=True):
        assert_equal(ours, theirs)
    write_groups(tmp_path / "none", [])
    assert read_groups(tmp_path / "none") == []
    (tmp_path / FOLDER / "rank_0.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="no whole record"):
        read_groups(tmp_path)


class Learner:
    """Keeps what it is to write."""

    def __init__(self) -> None:
        self.given: UpdateShare | None = None

    async def save(self, folder: str, background: bool, finished: UpdateShare) -> None:
        self.given = finished
        (Path(folder) / "learner").mkdir()
        (Path(folder) / "learner" / ".metadata").touch()

    async def written(self) -> None: ...

    async def finished(self, folder: str) -> dict[int, str]:
        assert self.given is not None and Path(folder).name == "step_000005"
        return {part.uid: part.payload for part in self.given.groups if part.uid != 9}


async def none() -> list[Any]:
    return []


async def test_a_checkpoint_holds_the_groups_that_wait_and_a_resumption_takes_them_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = {"model": "m", "out": str(tmp_path), "steps": 9, "data": {"train": "t"}, "algo": {"prompts_per_step": 1}}
    tracker = SimpleNamespace(mark=lambda step: {"step": step}, timeline=lambda *_: None)
    io = RunIO(TrainConfig.model_validate(raw), tracker, None, 0.0)  # type: ignore[arg-type]
    learner, waiting = Learner(), [graded(4), graded(7), graded(9)]
    parts = (OrderedPrompts(("a",), 0), Ledger(lambda row: None), tuple, lambda: waiting)
    rewards = SimpleNamespace(state_dict=none)
    await (await io.checkpoint(5, learner, rewards, *parts))  # type: ignore[arg-type]
    assert learner.given == share_of(waiting)
    found = latest_checkpoint(tmp_path)
    # The tokens of 9 were gone; of groups of another size none is taken up.
    assert await finished_groups(learner, found, 3) == waiting[:2]  # type: ignore[arg-type]
    assert await finished_groups(learner, found, 4) == []  # type: ignore[arg-type]
    older = {key: value for key, value in found.state.items() if key != "finished"}
    assert await finished_groups(learner, Checkpoint(found.folder, older), 3) == []  # type: ignore[arg-type]

    async def torn(folder: str) -> dict[int, str]:
        raise DataError(f"{folder} holds no whole record of rank 0")

    assert await finished_groups(SimpleNamespace(finished=torn), found, 3) == []  # type: ignore[arg-type]
    assert "no whole record of rank 0; 3 finished groups are sampled again" in caplog.text
