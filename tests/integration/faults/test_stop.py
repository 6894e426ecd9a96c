"""A run as a process of its own that is told to stop, or killed: what it leaves, and that it goes on from there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import yaml

from rl.checkpoint_folder import complete_checkpoints
from rl.finished import read_groups
from rl.recording import read_rank, step_folder
from rl.records import Group
from tests.integration.faults.accounts import assert_accounted, fates_of
from tests.integration.process import Process
from tests.integration.support import Paths, train_config
from tests.unit.test_recording import assert_equal

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]

STEPS = 8


@pytest.fixture
def run(paths: Paths, tmp_path: Path) -> tuple[Path, Path]:
    """(config file, run folder) of an asynchronous run."""
    out = tmp_path / "run"
    config = train_config(paths, out, steps=STEPS, algo__max_staleness=2, checkpoint__every=3, record__every=1)
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file, out


def _assert_trained_as_they_were(out: Path, groups: list[Group]) -> None:
    """Those that are trained have the tokens, and the versions of these, that they had in the checkpoint."""
    fates = {row["uid"]: row for row in fates_of(out)}
    trained = [group for group in groups if fates[group.uid]["fate"] == "trained"]
    assert trained, "no step took any of them"
    for group in trained:
        (update,) = read_rank(step_folder(out, fates[group.uid]["step"]), 0)
        (made,) = [part.group for part in update.groups if part.group.uid == group.uid]
        assert_equal(made, group)


def test_sigterm_finishes_the_step_and_the_run_goes_on(run: tuple[Path, Path]) -> None:
    """Groups that waited for the learner are trained and not sampled again."""
    config, out = run
    first = Process(config)
    first.reach(out, 2)
    first.send(signal.SIGTERM)
    code, text = first.end()
    assert code == 75, text
    (stopped,) = complete_checkpoints(out)
    step = int(stopped.name.removeprefix("step_"))
    assert 2 <= step < STEPS
    assert f"stopped after step {step} of {STEPS}; go on with --resume" in text
    finished = read_groups(stopped)
    code, text = Process(config, "--resume").end()
    assert code == 0, text
    assert_accounted(out, STEPS)
    _assert_trained_as_they_were(out, finished)


def test_sigterm_while_the_engines_start_and_the_same_command_again(run: tuple[Path, Path]) -> None:
    """A job that is preempted before its first step ends as one that is to be started again, and leaves nothing."""
    config, out = run
    first = Process(config, "--auto-resume")
    first.await_text("RolloutWorker")  # what its engine prints on its way
    first.send(signal.SIGTERM)
    code, text = first.end()
    assert code == 75, text
    assert "SIGTERM: stopped and closed before the work was done" in text
    code, text = Process(config, "--auto-resume").end()
    assert code == 0, text
    assert_accounted(out, STEPS)


def test_ctrl_c_twice_ends_at_once_and_a_killed_run_is_resumed(run: tuple[Path, Path]) -> None:
    """SIGKILL after the checkpoint of step 3, Ctrl-C twice on what resumes from it, then the rest."""
    config, out = run
    killed = Process(config)
    killed.reach(out, 4)
    killed.send(signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL
    assert [path.name for path in complete_checkpoints(out)] == ["step_000003"]

    interrupted = Process(config, "--resume")
    interrupted.reach(out, 5)
    interrupted.send(signal.SIGINT, group=True)
    interrupted.await_text("once more to end now")  # two at once may arrive as one
    interrupted.send(signal.SIGINT, group=True)
    code, text = interrupted.end()
    assert code == 130, text  # 75 is a stop in good order
    code, text = Process(config, "--resume").end()
    assert code == 0, text
    assert_accounted(out, STEPS)
