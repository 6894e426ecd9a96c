"""Whose a run folder is, and what is refused before a run touches it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rl import train
from rl.checkpoint_folder import begin, complete, complete_checkpoints, set_aside_newer
from rl.config.base import load_config, save_config
from rl.config.train import TrainConfig
from rl.data.store import DatasetNames, OrderedPrompts, is_digest
from rl.errors import ActorLostError, CheckpointError, ConfigError, TornCheckpointError
from rl.ledger import Ledger
from rl.metrics.tracker import ROW_FILES
from rl.reward_setup import carry
from rl.run_folder import check_steps, claimed, compare_settings, folder_problems
from rl.run_io import latest_checkpoint

HOLDER = """
import sys, time
from pathlib import Path
from rl.run_folder import check_steps, claimed, compare_settings, folder_problems
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def config(out: Path, **changes: object) -> TrainConfig:
    raw = {"model": "m", "out": str(out), "steps": 1, "data": {"train": "t"}, "algo": {"prompts_per_step": 1}}
    return TrainConfig.model_validate(raw | changes)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_drives_is_refused_until_that_one_is_gone(tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        (out / "fates.jsonl").write_text("{}\n")
        with pytest.raises(ConfigError, match=rf"another process \(pid {holder.pid} on .*another `out`"):
            train.run(config(out), resume=resume)
        assert sorted(path.name for path in out.iterdir()) == [".lock", "fates.jsonl"]
        os.kill(holder.pid, signal.SIGKILL)  # no clean-up of its own
    with claimed(out):
        assert (out / ".lock").read_text().startswith(f"pid {os.getpid()} on ")


def test_the_folder_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), claimed(tmp_path):
        with pytest.raises(ConfigError, match="another process"), claimed(tmp_path):
            pass
        raise ValueError("inside")
    with claimed(tmp_path):
        pass


def test_resuming_where_no_run_is_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train.run(config(tmp_path / "typo"), resume=True)
    assert not (tmp_path / "typo").exists()


def rows(count: int) -> str:
    """Of 11 bytes each."""
    return "".join(f'{{"row": {i}}}\n' for i in range(count))


def run_with_a_checkpoint(out: Path, steps: tuple[int, ...] = (1, 2)) -> TrainConfig:
    """A run folder with checkpoints; that of step n knows of n prompts and n rows in each file. A row came later."""
    given = config(out, steps=2)
    save_config(given.model_copy(update={"steps": 9}), out / "config.yaml")
    for name in ROW_FILES:
        (out / name).write_text(rows(max(steps) + 1))
    prompts = OrderedPrompts(("a", "b"), 0).state_dict()
    ledger = Ledger(lambda row: None)
    for step in steps:
        ledger.admit("a", step)
        taken = {"prompts": prompts, "ledger": ledger.state_dict()}
        state = {"step": step, "started": 0.0, "requeued": [], "rewards": []} | taken
        folder = out / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "driver.json").write_text(
            json.dumps(state | {"rows": {"step": step} | dict.fromkeys(ROW_FILES, 11 * step)})
        )
    return given


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"}


class Part:
    """Stands for the actors of a run: up at once, with a dataset of two rows."""

    def __init__(self, *_: Any) -> None:
        pass

    async def ready(self) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def push(self, _: None) -> None: ...

    async def load_state_dict(self, _: list[Any]) -> None: ...

    async def catalogue(self, _: str) -> DatasetNames:
        return DatasetNames(("a", "b"), {}, ("text",))


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> type[Part]:
    class Learner(Part):
        async def load(self, folder: str) -> int:
            if (Path(folder) / "torn").exists():
                raise TornCheckpointError(f"{folder}/learner/__0_0.distcp is torn: it has 7 bytes of 9")
            return int(Path(folder).name[-1])

        async def publish(self) -> None: ...

        def watched(self) -> contextlib.nullcontext[None]:
            return contextlib.nullcontext()

    for name, part in (("RolloutPool", Part), ("RewardClient", Part), ("LearnerGroup", Learner)):
        monkeypatch.setattr(train, name, part)
    monkeypatch.setattr(train, "connect", lambda *_: None)
    monkeypatch.setattr(train, "check_mixture", lambda *_: None)
    return Learner


class Restored(Exception):
    """Ends a run that has taken up a checkpoint."""


@pytest.fixture
def loop_ends(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The states of the ledgers that resumed runs go on with; they end there."""
    states: list[dict[str, Any]] = []

    def load(self: Ledger, state: dict[str, Any]) -> None:
        states.append(state)
        raise Restored

    monkeypatch.setattr(Ledger, "load_state_dict", load)
    return states


def test_from_a_torn_learner_state_a_run_goes_back_to_the_checkpoint_before(
    tmp_path: Path, actors: type[Part], loop_ends: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    given = run_with_a_checkpoint(tmp_path, (1, 2, 3))
    for step in (2, 3):
        (tmp_path / "checkpoints" / f"step_{step:06d}" / "torn").touch()
    with caplog.at_level(logging.WARNING), pytest.raises(Restored):
        train.run(given.model_copy(update={"steps": 3}), resume=True)
    for step in (2, 3):
        said = rf"00000{step}/learner/__0_0\.distcp is torn: .*before it, .*step_00000{step - 1}$"
        assert re.search(said, caplog.text, re.M)
    # Rows as the older checkpoint counts them, and the names free for the run to make those steps again.
    assert [state["next_uid"] for state in loop_ends] == [1]
    assert all((tmp_path / name).read_text() == rows(1) for name in ROW_FILES)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_000001",
        "step_000002.torn",
        "step_000003.torn",
    ]


@pytest.mark.parametrize("text", ['{"step": 2, "sta', "", "[]", '{"step": 2}', "\udcff", None])
def test_from_a_torn_driver_state_a_run_goes_back_to_the_checkpoint_before(
    tmp_path: Path,
    actors: type[Part],
    loop_ends: list[dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
    text: str | None,
) -> None:
    given = run_with_a_checkpoint(tmp_path)
    damaged = tmp_path / "checkpoints" / "step_000002" / "driver.json"
    damaged.unlink() if text is None else damaged.write_bytes(text.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING), pytest.raises(Restored):
        train.run(given, resume=True)
    assert re.search(r"000002/driver\.json is torn: .*before it, .*step_000001$", caplog.text, re.M)
    assert [state["next_uid"] for state in loop_ends] == [1]
    assert all((tmp_path / name).read_text() == rows(1) for name in ROW_FILES)


def with_learner(partial: Path) -> Path:
    (partial / "learner").mkdir()
    (partial / "learner" / ".metadata").write_text("")
    return partial


def test_a_checkpoint_without_the_learners_files_gets_no_name(tmp_path: Path) -> None:
    """They are on another node where `out` is a folder of each node's own."""
    final = tmp_path / "checkpoints" / "step_000001"
    with pytest.raises(CheckpointError, match=r"none of it is in .*set `out` to one that"):
        complete(begin(final), final, {}, keep=1)
    assert not final.exists()


def test_what_runs_that_were_killed_left_is_removed(tmp_path: Path) -> None:
    run_with_a_checkpoint(tmp_path, (1,))
    folder = tmp_path / "checkpoints"
    begin(folder / "step_000007")
    final = folder / "step_000002"
    complete(with_learner(begin(final)), final, {}, keep=2)
    assert sorted(path.name for path in folder.iterdir()) == ["step_000001", "step_000002"]


def test_an_old_checkpoint_that_can_not_be_removed_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a process on the same host reads it from a network file system."""
    run_with_a_checkpoint(tmp_path, (1,))
    final = tmp_path / "checkpoints" / "step_000002"
    partial = with_learner(begin(final))

    def busy(path: Path, **_: Any) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        complete(partial, final, {}, keep=1)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_000001", "step_000002"]
    assert "step_000001 is not needed any more and could not be removed" in caplog.text


def test_a_config_that_can_not_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, path = config(tmp_path, steps=2), tmp_path / "config.yaml"
    save_config(given, path)
    before, write = path.read_text(), Path.write_text

    def full(self: Path, text: str, **how: Any) -> None:
        write(self, text[:10], **how)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        save_config(given.model_copy(update={"steps": 3}), path)
    assert path.read_text() == before


def test_a_torn_checkpoint_gives_its_place_to_the_one_that_is_made_again(tmp_path: Path) -> None:
    """It neither counts among those that are kept nor stops the step's new checkpoint."""
    run_with_a_checkpoint(tmp_path, (1, 3))
    folder = tmp_path / "checkpoints"
    set_aside_newer(folder / "step_000001")
    for step, kept in ((2, ["step_000002", "step_000003.torn"]), (3, ["step_000003"])):
        final = folder / f"step_{step:06d}"
        complete(with_learner(begin(final)), final, {}, keep=1)
        assert sorted(path.name for path in folder.iterdir()) == kept


def test_where_no_checkpoint_is_whole_the_record_stays_as_it_was(tmp_path: Path, actors: type[Part]) -> None:
    given = run_with_a_checkpoint(tmp_path)
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step_{step:06d}" / "torn").touch()
    before = contents(tmp_path)
    with pytest.raises(TornCheckpointError, match=r"000001/learner/.* is torn.*no older checkpoint"):
        train.run(given, resume=True)
    assert contents(tmp_path) == before
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step_{step:06d}" / "driver.json").write_text("")
    with pytest.raises(
        TornCheckpointError, match=r"000002/driver\.json is.*000001/driver\.json is.*no older checkpoin"
    ):
        train.run(given, resume=True)
    assert contents(tmp_path) == before
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_000001", "step_000002"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name_and_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_with_a_checkpoint(tmp_path, (1,))
    final = tmp_path / "checkpoints" / "step_000002"
    partial = begin(final)
    with_learner(partial)
    done: list[tuple[str, str]] = []

    def log(what: str, path: object) -> None:
        done.append((what, str(Path(str(path)).relative_to(tmp_path))))

    fsync, rename, rmtree = os.fsync, Path.rename, shutil.rmtree
    monkeypatch.setattr(os, "fsync", lambda fd: (log("flush", os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(Path, "rename", lambda self, to: (log("rename", to), rename(self, to)))
    monkeypatch.setattr(shutil, "rmtree", lambda path, **how: (log("remove", path), rmtree(path, **how)))
    complete(partial, final, {}, keep=1)
    name = "checkpoints/step_000002"
    assert [what for what, _ in done] == ["flush"] * 4 + ["rename"] + ["flush"] * 2 + ["remove"] * 2
    assert {path for _, path in done[:4]} == {
        f"{name}.partial{end}" for end in ("", "/driver.json", "/learner", "/learner/.metadata")
    }
    assert done[4:] == [
        ("rename", name),
        ("flush", "checkpoints"),
        ("flush", "."),
        ("remove", "checkpoints/step_000001"),
        ("remove", f"{name}.torn"),
    ]


def test_the_record_goes_back_once_everything_is_restored(tmp_path: Path) -> None:
    given = run_with_a_checkpoint(tmp_path)
    train._open_record(given, carry(given.rewards), latest_checkpoint(tmp_path)).close()
    assert all((tmp_path / name).read_text() == rows(2) for name in ROW_FILES)
    assert load_config(TrainConfig, tmp_path / "config.yaml") == given


def test_other_settings_are_said_at_resumption(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = config(tmp_path).model_dump(mode="json")
    new = config(tmp_path / "copied", steps=5, learner={"optimizer": {"lr": 0.5}})
    with caplog.at_level(logging.WARNING):
        compare_settings(saved, new)
    changes = [line.strip() for line in caplog.text.splitlines()[1:]]
    old_lr = saved["learner"]["optimizer"]["lr"]
    assert changes == ["steps: 1 -> 5", f"learner.optimizer.lr: {old_lr} -> 0.5"]


def test_another_model_is_refused_at_resumption_and_leaves_the_record(tmp_path: Path, actors: type[Part]) -> None:
    given = run_with_a_checkpoint(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"started from model m and can't go on with other.*resume with model=m"):
        train.run(given.model_copy(update={"model": "other"}), resume=True)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_seen_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.csv").write_text("")
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    for out, said in ((tmp_path / "file" / "run", "is not a folder"), (Path("~/run"), "only a shell expands")):
        given = config(out, model=str(tmp_path / "model"), data={"train": str(tmp_path / "rows.csv")})
        found = "\n".join(train.check(given))
        assert said in found and "has no config.json" in found and "is of no known kind" in found
        with pytest.raises(ConfigError, match=said):
            train.run(given)
    if not os.access(shut, os.W_OK):  # root may write anywhere
        assert "no permission" in folder_problems(str(shut / "run"))[0]
    assert folder_problems(str(tmp_path / "new" / "run")) == [] and not (tmp_path / "new").exists()


def test_ids_with_line_breaks_are_told_apart() -> None:
    assert OrderedPrompts(("a\nb", "c"), 0).state_dict()["ids"] != OrderedPrompts(("a", "b\nc"), 0).state_dict()["ids"]
    lines = hashlib.sha256(b"a\nb\nc").hexdigest()
    assert is_digest(lines, ("a", "b", "c")) and not is_digest(lines, ("a\nb", "c"))


def test_a_dead_learner_rank_says_from_where_to_go_on(tmp_path: Path, actors: type[Part]) -> None:
    given = run_with_a_checkpoint(tmp_path)

    async def load(self: Part, folder: str) -> int:
        raise ActorLostError("learner rank 1 died (killed)")

    actors.load = load  # type: ignore[attr-defined]
    with pytest.raises(ActorLostError, match=r"rank 1 died \(killed\); go on with --resume \(.*: step 2\)$"):
        train.run(given, resume=True)


def test_a_run_is_not_taken_back() -> None:
    check_steps("runs/x", steps=4, made=4)
    with pytest.raises(ConfigError, match="the run in runs/x has made 4 steps, and steps is 2"):
        check_steps("runs/x", steps=2, made=4)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, actors: type[Part]) -> list[int | None]:
    """The step of the checkpoint that each run took up, None for one that started; no run does more than that."""
    taken: list[int | None] = []

    async def begin(given: TrainConfig, carried: Any, found: Any) -> None:
        taken.append(None if found is None else found.state["step"])
        train._open_record(given, carried, found).close()

    monkeypatch.setattr(train, "_train", begin)
    monkeypatch.setattr(train, "print_final", lambda out: None)
    return taken


def test_a_retried_run_starts_or_goes_on(tmp_path: Path, begun: list[int | None]) -> None:
    """One command line, for a folder that is not there, for one with a checkpoint, and for one without."""
    train.run(config(tmp_path / "fresh"), resume="auto")
    given = run_with_a_checkpoint(tmp_path / "run")
    train.run(given, resume="auto")
    train.run(config(tmp_path / "fresh"), resume="auto")  # nothing but its config was there
    assert begun == [None, 2, None]
    assert not list(tmp_path.glob("*/attempt_*"))


def test_a_run_without_a_checkpoint_starts_again_and_its_record_is_kept(
    tmp_path: Path, begun: list[int | None], caplog: pytest.LogCaptureFixture
) -> None:
    """Twice; a folder that the run did not write, and half a checkpoint, stay where they are."""
    given = config(tmp_path)
    for attempt in ("attempt_1", "attempt_2"):
        (tmp_path / "fates.jsonl").write_text(f"of {attempt}")
        (tmp_path / "evals").mkdir()
        (tmp_path / "evals" / "step_000000.json").write_text(f"of {attempt}")
        (tmp_path / "notes").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "step_000001.partial").mkdir(parents=True, exist_ok=True)
        with pytest.raises(ConfigError, match=r"holds a run already; it has no checkpoint yet.*--auto-resume"):
            train.run(given)
        with caplog.at_level(logging.WARNING):
            train.run(given, resume="auto")
        kept = tmp_path / attempt
        assert (kept / "fates.jsonl").read_text() == f"of {attempt}"
        assert (kept / "evals" / "step_000000.json").read_text() == f"of {attempt}"
        assert f"its record is in {kept} now, and it starts again" in caplog.text
        assert not (tmp_path / "fates.jsonl").exists() and (tmp_path / "notes").is_dir()
        assert (tmp_path / "checkpoints" / "step_000001.partial").is_dir()
        assert (tmp_path / "config.yaml").is_file()  # of the run that has started
    assert begun == [None, None]
