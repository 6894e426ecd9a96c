"""Whose a run folder is, and what is refused before a run touches it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rl import train
from rl.config.train import TrainConfig
from rl.errors import CheckpointError, ConfigError
from rl.run_folder import claimed

HOLDER = """
import sys, time
from pathlib import Path
from rl.run_folder import claimed
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
