"""A second fault before the first is repaired: a worker that hangs on its way to serve is replaced in its turn."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import state

from rl import train
from rl.cluster import RolloutPool
from rl.errors import StoppedError
from rl.liveness import has_process
from rl.metrics.files import read_metrics
from tests.integration.faults.accounts import fates_of
from tests.integration.faults.injector import KILL_ROLLOUT, Injector
from tests.integration.support import Paths, train_config

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

HANG_S = 10


def test_a_worker_that_hangs_in_its_refit_is_replaced(
    cluster: None, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The only worker is killed, and who replaces it is stopped once it is ready and before it has the weights."""
    refit, seen = RolloutPool._refit, list[int]()

    async def stopped_first(self: RolloutPool, actor: Any) -> None:
        seen.append(state.actors(actor._actor_id.hex())["Pid"])
        if len(seen) == 1:
            os.kill(seen[0], signal.SIGSTOP)
        await refit(self, actor)

    monkeypatch.setattr(RolloutPool, "_refit", stopped_first)
    faults = {"ping_every_s": 0.5, "hang_s": HANG_S}
    changes = {"algo__max_staleness": 2, "rollout__workers": 1, "learner__optimizer__lr": 1e-6}
    config = train_config(paths, tmp_path / "run", steps=100_000, **changes, rollout__faults=faults)
    out = Path(config.out)
    with Injector(out, [KILL_ROLLOUT]) as injector, pytest.raises(StoppedError):
        train.run(config)

    assert len(injector.injected) == 1 and len(set(seen)) == 2
    assert not Path(f"/proc/{seen[0]}").exists()
    assert f"rollout-0 did not answer for {HANG_S} s" in caplog.text
    assert read_metrics(out).rows[-1]["faults/replaced"] == 1  # as seen from outside it was one outage
    fates = fates_of(out)
    assert len({row["uid"] for row in fates}) == len(fates)
    assert not [row for row in fates if row["fate"] == "failed"]


async def test_a_start_begins_when_ray_has_made_the_process(cluster: None, tmp_path: Path) -> None:
    release = tmp_path / "release"

    class Slow:
        def __init__(self) -> None:
            while not release.exists():
                threading.Event().wait(0.05)

        async def ready(self) -> None: ...

    placed = ray.remote(num_cpus=0)(Slow).remote()
    nowhere = ray.remote(num_cpus=0, resources={"no_node_has_it": 1})(Slow).remote()
    try:
        await _until(lambda: has_process(placed))
        assert not has_process(nowhere)
        release.touch()
        await placed.ready.remote()
        assert has_process(placed) and not has_process(nowhere)
    finally:
        for actor in (placed, nowhere):
            ray.kill(actor)


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.05)
