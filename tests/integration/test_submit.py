"""`launch/submit.py` against a real Ray head on this machine: upload, log, exit code."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl.config.base import dump_yaml
from rl.metrics.files import read_metrics
from tests.integration.support import Paths, train_config

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).parents[2]
STARTED = "Ray runtime started."
STOP_SECONDS = 20


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Address of the dashboard of a head node of its own; stopped with all it started."""
    names = ["port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port"]
    names += ["metrics-export-port", "ray-client-server-port"]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    temp = tempfile.mkdtemp(prefix="ray")  # short: Ray puts sockets below it, whose paths may have 107 characters
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--temp-dir={temp}"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--disable-usage-stats"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=8", f"--object-store-memory={256 << 20}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if STARTED in line:
                break
        else:
            pytest.fail("the head did not start:\n" + "".join(said))
        yield f"http://127.0.0.1:{ports['dashboard-port']}"
    finally:
        stop(process)
        shutil.rmtree(temp, ignore_errors=True)


def stop(process: subprocess.Popen[str]) -> None:
    """End a head and its descendants: by its own handler, else by force."""
    family = [*psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    process.communicate(timeout=STOP_SECONDS)
    _, alive = psutil.wait_procs(family, STOP_SECONDS)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, STOP_SECONDS)


@pytest.fixture
def folder(paths: Paths, tmp_path: Path) -> Path:
    """A working directory as users have it: the code, a config, and models and data that are not uploaded."""
    for package in ("rl", "rewards"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(paths.tuned, tmp_path / "models" / "tuned")
    (tmp_path / "data").mkdir()
    shutil.copyfile(paths.train, tmp_path / "data" / "train.parquet")
    (tmp_path / "configs").mkdir()
    raw: dict[str, Any] = train_config(paths, tmp_path, steps=1).model_dump(mode="json")
    raw |= {"model": "models/tuned", "out": "runs/job", "data": raw["data"] | {"train": "data/train.parquet"}}
    (tmp_path / "configs" / "rl.yaml").write_text(dump_yaml(raw))
    return tmp_path


def submit(folder: Path, head: str, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch" / "submit.py"), "configs/rl.yaml", "--address", head, *extra]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_job_runs_goes_on_and_its_failure_is_seen(folder: Path, head: str) -> None:
    """Once more with a step more, as a retry of an unfinished run would; then with fewer, which the job refuses."""
    first = submit(folder, head, "learner.optimizer.lr=5e-4")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "SUCCEEDED" in first.stderr
    run = folder / "runs" / "job"
    (row,) = read_metrics(run).rows
    assert (row["step"], row["lr"]) == (1, 5e-4)
    for name in ("config.yaml", "summary.json", "report.html", "fates.jsonl", "checkpoints/step_000001/hf/config.json"):
        assert (run / name).is_file(), name
    assert str(run) in first.stdout  # the last line of the job's log, streamed here

    second = submit(folder, head, "learner.optimizer.lr=5e-4", "steps=2")
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{run}: going on from step_000001" in second.stdout
    assert [row["step"] for row in read_metrics(run).rows] == [1, 2]

    third = submit(folder, head)
    assert third.returncode == 1, third.stdout + third.stderr
    assert "has made 2 steps, and steps is 1" in third.stdout
    assert "FAILED" in third.stderr
