"""`rl train` on SGLang: a run of four steps whose server is killed under way, process group and all."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from rl import train
from rl.metrics.files import read_metrics
from tests.integration.support import MAX_DELTA, Paths, engine_config, marked_processes, shared_memory, train_config

pytestmark = pytest.mark.timeout(1800)

STEPS, BOUND = 4, 1


def _servers() -> set[int]:
    """Process groups of the session's SGLang servers."""
    groups = set()
    for pid, command in marked_processes().items():
        if "rl_serve.py" in command:
            try:
                groups.add(os.getpgid(pid))
            except ProcessLookupError:
                continue
    return groups


def _folder(server: int) -> Path:
    """Where a server has its log and sockets."""
    environ = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
    return Path(next(line for line in environ if line.startswith(b"TMPDIR=")).removeprefix(b"TMPDIR=").decode())


def _kill_server(out: Path, before: set[int], killed: dict[int, Path], ended: threading.Event) -> None:
    """Kill the run's server as soon as the first step has its row, when most groups of the four are not begun."""
    rows = out / "metrics.jsonl"
    while not ended.is_set() and not (rows.exists() and rows.read_text().count("\n")):
        time.sleep(0.02)
    for group in _servers() - before:
        killed[group] = _folder(group)
        os.killpg(group, signal.SIGKILL)


def test_a_run_survives_its_server(cluster: None, paths: Paths, tmp_path: Path) -> None:
    engine = engine_config("sglang")
    changes = {"rollout__engine": engine.model_dump(), "rollout__faults": {"ping_every_s": 0.5, "hang_s": 120}}
    config = train_config(
        paths, tmp_path / "run", steps=STEPS, algo__max_staleness=BOUND, stall_timeout_s=1500, **changes
    )
    out, killed, ended = Path(config.out), dict[int, Path](), threading.Event()
    shared = shared_memory()
    killer = threading.Thread(target=_kill_server, args=(out, _servers(), killed, ended), daemon=True)
    killer.start()
    try:
        train.run(config)
    finally:
        ended.set()
        killer.join()

    assert len(killed) == 1
    rows = read_metrics(out).rows
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert rows[-1]["faults/replaced"] == 1
    assert max(row["staleness/max"] for row in rows) <= BOUND
    # The new server begins with the run's first weights, and gets the newest before it serves.
    assert all(row["probe/logprob_delta_max"] < MAX_DELTA for row in rows)
    assert all(0 < row["sync/apply_s"] <= row["sync/pause_s"] for row in rows)
    timeline = [json.loads(line) for line in (out / "timeline.jsonl").read_text().splitlines()]
    assert [row["actor"] for row in timeline if row["phase"] == "down"] == ["rollout-0"]
    fates = json.loads((out / "summary.json").read_text())["fates"]
    ends = [json.loads(line) for line in (out / "fates.jsonl").read_text().splitlines()]
    assert sorted(row["uid"] for row in ends) == list(range(fates["admitted"]))
    counts = Counter(row["fate"] for row in ends)
    assert counts["trained"] == STEPS * config.algo.prompts_per_step
    assert counts["failed"] == 0  # a dead server is nobody's wrong answer
    assert fates["admitted"] == sum(counts.values())
    assert not _servers() & killed.keys()
    # It can't remove these itself, and its worker is killed, too.
    assert not shared_memory() - shared
    assert not any(folder.exists() for folder in killed.values())
