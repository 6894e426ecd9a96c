"""`launch/slurm.sh` with stand-ins for SLURM, Ray and `rl`: what it starts, and what a signal to it comes to."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "slurm.sh"

COMMANDS = {
    "scontrol": "echo node-a",
    "srun": 'case "$*" in *hostname*) echo 10.0.0.1 ;; esac',
    "python": "cat >/dev/null",
    # Says that it runs, and at SIGTERM ends as a run that has written its checkpoint.
    "rl": """[ "$1" = train ] || exit 0
[ "$2" != broken.yaml ] || exit 2
trap 'echo stopping; read -r _ <"$FIFO"; exit 75' TERM
echo "rl $*"
while :; do read -r -t 0.05 _ <>"$FIFO" || true; done""",
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, body in COMMANDS.items():
        (binaries / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (binaries / name).chmod(0o755)
    (binaries / "activate").write_text(f"PATH={binaries}:$PATH\n")
    os.mkfifo(tmp_path / "go")
    given = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "node-a", "FIFO": str(tmp_path / "go")}
    return os.environ | given


def begin(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SCRIPT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def line(process: subprocess.Popen[str], start: str) -> str:
    """The next line that begins so."""
    assert process.stdout is not None
    return next(text.strip() for text in process.stdout if text.startswith(start))


@pytest.mark.parametrize(
    ("given", "passed"),
    [((), ["--auto-resume"]), (("--resume",), ["--resume"]), (("--auto-resume",), ["--auto-resume"])],
)
def test_sigterm_reaches_the_run_alone_and_its_end_is_waited_for(
    environment: dict[str, str], given: tuple[str, ...], passed: list[str]
) -> None:
    process = begin(environment, "a.yaml", "steps=3", *given)
    try:
        assert line(process, "rl ").split() == ["rl", "train", "a.yaml", "steps=3", *passed]
        process.send_signal(signal.SIGTERM)
        line(process, "stopping")
        process.send_signal(signal.SIGTERM)  # SLURM's own, at the end of its grace
        assert process.poll() is None
        with open(environment["FIFO"], "w") as go:
            go.write("\n")
        assert process.wait(timeout=30) == 75
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_code_of_a_run_that_ends_by_itself(environment: dict[str, str]) -> None:
    process = begin(environment, "broken.yaml")
    assert process.wait(timeout=30) == 2


def test_the_signal_leaves_the_default_time_and_the_job_can_be_put_back() -> None:
    from rl.config.checkpoint import CheckpointConfig

    options = [text.split()[1] for text in SCRIPT.read_text().splitlines() if text.startswith("#SBATCH")]
    (seconds,) = [int(option.rpartition("@")[2]) for option in options if option.startswith("--signal=B:TERM@")]
    assert seconds >= CheckpointConfig().stop_within_s + 180
    assert {"--requeue", "--open-mode=append"} <= set(options)
