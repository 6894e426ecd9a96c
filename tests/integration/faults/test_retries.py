"""A run whose driver and learner die and hang at random moments, started again each time as a job's retries do.

`RETRIES=12` makes the soak test of it (`make soak`).
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import yaml

from rl.metrics.files import read_metrics
from tests.integration.faults.accounts import assert_epochs, assert_sound
from tests.integration.faults.injector import Fault
from tests.integration.process import Process
from tests.integration.support import Paths, marked_processes, train_config

RETRIES = int(os.environ.get("RETRIES", 3))
LONGEST = 6
"""Steps after which a run dies, at most."""
STEPS = (RETRIES + 1) * LONGEST
SAMPLES = 64

KILL_DRIVER = Fault("the driver", signal.SIGKILL)
KILL_LEARNER = Fault("ray::LearnerRank", signal.SIGKILL)
HANG_LEARNER = Fault("ray::LearnerRank", signal.SIGSTOP)

pytestmark = [pytest.mark.timeout(600 + 240 * RETRIES), pytest.mark.slow]


def test_a_run_is_retried_until_it_is_done(paths: Paths, tmp_path: Path) -> None:
    rng = random.Random(23)
    kinds = [HANG_LEARNER, KILL_DRIVER, KILL_LEARNER]
    faults = rng.sample([*kinds, *rng.choices(kinds, k=max(0, RETRIES - len(kinds)))][:RETRIES], RETRIES)
    out = tmp_path / "run"
    learner = {"learner__optimizer__lr": 1e-6, "learner__faults": {"ping_every_s": 0.5, "hang_s": 20}}
    changes = {"algo__max_staleness": 2, "checkpoint__every": 3, "stall_timeout_s": 600, **learner}
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(train_config(paths, out, steps=STEPS, **changes).model_dump(mode="json")))
    for fault in faults:
        run = Process(config, "--auto-resume")
        rows = read_metrics(out).rows if out.exists() else []
        run.reach(out, len(rows) + rng.randint(1, LONGEST))
        time.sleep(rng.random() * read_metrics(out).rows[-1]["time/step_s"])
        if fault is KILL_DRIVER:
            run.send(fault.signal)
        else:
            (victim,) = [pid for pid, command in marked_processes().items() if fault.victim in command]
            os.kill(victim, fault.signal)
        code, text = run.end()
        print(f"{fault} at step {len(read_metrics(out).rows)}, exit code {code}", flush=True)
        assert code == (-signal.SIGKILL if fault is KILL_DRIVER else 2), text
    code, text = Process(config, "--auto-resume").end()
    assert code == 0, text
    assert_sound(out, STEPS)
    assert_epochs(out, SAMPLES)
