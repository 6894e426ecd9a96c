"""Records of steps: what is read is what was written, and a replay that differs in one bit is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import rl.replay
from rl.batch.plan import GroupShare, UpdateShare
from rl.cli.app import app
from rl.config.base import save_config
from rl.config.train import RecordConfig, TrainConfig
from rl.errors import ConfigError, DataError
from rl.recording import begin, fetched, finish, read_outcome, read_rank, step_folder, write_rank
from rl.records import Group, Rollout, VersionSpan
from rl.replay import Difference, compare, replay
from rl.run_io import RunIO


def group(uid: int, images: int) -> Group:
    rng = np.random.default_rng(uid)
    rollouts = tuple(
        Rollout(
            token_ids=rng.integers(0, 99, length).astype(np.int32),
            logprobs=rng.normal(size=length).astype(np.float32),
            versions=(VersionSpan(6, 0, 1), VersionSpan(7, 1, length)),
            finish_reason="stop",
            text=f"é {length}\n",
        )
        for length in (2, 5)
    )
    pixels = tuple(rng.integers(0, 255, (4, 6, 3)).astype(np.uint8) for _ in range(images))
    digests = tuple(f"digest-{i}" for i in range(images))
    return Group(uid, f"s{uid}", np.arange(7, dtype=np.int32), pixels, digests, rollouts)


def assert_equal(ours: Group, theirs: Group) -> None:
    assert (ours.uid, ours.sample_id, ours.image_digests) == (theirs.uid, theirs.sample_id, theirs.image_digests)
    for mine, other in zip(ours.rollouts, theirs.rollouts, strict=True):
        assert (mine.versions, mine.finish_reason, mine.text) == (other.versions, other.finish_reason, other.text)
    arrays = [
        [each.prompt_ids, *each.images, *(a for r in each.rollouts for a in (r.token_ids, r.logprobs))]
        for each in (ours, theirs)
    ]
    for mine, other in zip(*arrays, strict=True):
        assert mine.dtype == other.dtype and np.array_equal(mine, other)


def test_what_a_rank_trained_on_is_read_back(tmp_path: Path) -> None:
    groups = {uid: group(uid, images=uid % 2) for uid in (3, 4, 5)}
    shares = [
        UpdateShare((GroupShare(None, (0.1 + 0.2, None), 3), GroupShare(None, (-1.5, 2.0), 4)), sequences=7),
        UpdateShare((GroupShare(None, (1e-17, None), 5),), sequences=2),
    ]
    parts = fetched(shares, groups)
    write_rank(tmp_path, 1, parts)
    back = read_rank(tmp_path, 1)
    assert [part.sequences for part in back] == [7, 2]
    for ours, theirs in zip(back, parts, strict=True):
        for mine, other in zip(ours.groups, theirs.groups, strict=True):
            assert mine.advantages == other.advantages  # floats to the last bit
            assert_equal(mine.group, other.group)


@pytest.mark.parametrize("damage", ["json", "npz", "missing"])
def test_a_torn_record_is_refused(tmp_path: Path, damage: str) -> None:
    write_rank(tmp_path, 0, fetched([UpdateShare((GroupShare(None, (1.0, None), 1),), 1)], {1: group(1, 1)}))
    if damage == "missing":
        (tmp_path / "rank_0.npz").unlink()
    else:
        file = tmp_path / f"rank_0.{damage}"
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match="no whole record of rank 0"):
        read_rank(tmp_path, 0)


def test_a_record_has_its_name_once_it_is_whole(tmp_path: Path) -> None:
    partial = begin(tmp_path, 3)
    assert partial != step_folder(tmp_path, 3)
    with pytest.raises(DataError, match=r"no record of step 3; set record\.every"):
        read_outcome(tmp_path, 3)
    finish(partial, {"metrics": {"loss": 0.1}, "weights": "a"})
    assert read_outcome(tmp_path, 3) == {"metrics": {"loss": 0.1}, "weights": "a"}
    finish(begin(tmp_path, 3), {"metrics": {}, "weights": "b"})  # the run was resumed before it
    assert read_outcome(tmp_path, 3) == {"metrics": {}, "weights": "b"}
    finish(begin(tmp_path, 11), {})
    with pytest.raises(DataError, match="has no metrics or no digest of weights"):
        read_outcome(tmp_path, 11)
    (step_folder(tmp_path, 1).parent / "step_copied").mkdir()
    with pytest.raises(DataError, match="no record of step 4; there are those of 3, 11"):
        read_outcome(tmp_path, 4)


@pytest.mark.parametrize(
    ("config", "due"),
    [({}, []), ({"every": 3}, [3, 6]), ({"steps": [1, 5]}, [1, 5]), ({"every": 4, "steps": [1]}, [1, 4])],
)
def test_which_steps_are_recorded(config, due):
    record = RecordConfig.model_validate(config)
    assert [step for step in range(1, 8) if record.due(step)] == due


def test_numbers_are_compared_to_the_last_bit_and_clocks_are_not():
    recorded = {"loss": 0.1 + 0.2, "grad_norm": 1.0, "time/train_start": 5.0, "sync/stage_s": 1.0}
    same = compare(recorded, {"loss": 0.1 + 0.2, "grad_norm": 1.0, "time/train_start": 9.0}, "ab", "ab")
    assert [row.name for row in same] == ["grad_norm", "loss", "weights"] and all(row.same for row in same)
    other = compare(recorded, {"loss": 0.3, "entropy": 1.0}, "ab", "cd")
    assert {row.name: row.same for row in other} == dict.fromkeys(("entropy", "grad_norm", "loss", "weights"), False)
    assert Difference("kl", float("nan"), float("nan")).same and not Difference("kl", 0.0, -0.0).same


@pytest.mark.parametrize(("replayed", "code"), [(0.5, 0), (0.25, 1)])
def test_the_command_says_whether_the_replay_is_the_step(tmp_path, monkeypatch, replayed, code):
    monkeypatch.setattr(rl.replay, "replay", lambda folder, step: [Difference("loss", 0.5, replayed)])
    result = CliRunner().invoke(app, ["replay", str(tmp_path), "--step", "2"])
    assert result.exit_code == code and "loss" in result.output and ("NO" in result.output) == bool(code)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no run"):
        replay(tmp_path, 1)


def test_a_step_is_replayed_with_the_settings_that_it_was_made_with(tmp_path, monkeypatch):
    raw = {"model": "m", "out": str(tmp_path), "steps": 20, "data": {"train": "t"}, "algo": {"prompts_per_step": 1}}
    made = TrainConfig.model_validate(raw | {"record": {"steps": [3]}})
    later = made.model_copy(update={"steps": 40})  # the run was resumed with more steps
    io = RunIO(made, None, None, 0.0)  # type: ignore[arg-type]
    assert io.record(2) is None
    finish(Path(io.record(3)), {"metrics": {"loss": 0.5}, "weights": "a"})
    save_config(later, tmp_path / "config.yaml")
    used = []

    async def replayed(config, folder):
        used.append(config)
        return {"loss": 0.5}, "a"

    monkeypatch.setattr(rl.replay, "connect", lambda *_, **__: None)
    monkeypatch.setattr(rl.replay, "_replay", replayed)
    assert all(row.same for row in replay(tmp_path, 3)) and used == [made]

    (step_folder(tmp_path, 3) / "config.yaml").unlink()
    with pytest.raises(DataError, match=r"step_000003/config\.yaml is missing: records of older versions"):
        replay(tmp_path, 3)


def test_records_hold_no_pickles(tmp_path):
    write_rank(tmp_path, 0, fetched([UpdateShare((GroupShare(None, (1.0, None), 1),), 1)], {1: group(1, 1)}))
    with np.load(tmp_path / "rank_0.npz", allow_pickle=False) as arrays:
        assert len([arrays[name] for name in arrays.files]) == 6
    assert json.loads((tmp_path / "rank_0.json").read_text())["updates"][0]["groups"][0]["uid"] == 1
