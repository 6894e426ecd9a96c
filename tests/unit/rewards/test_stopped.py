"""Processes of a pool that are stopped (SIGSTOP): they run no code of their own, and must neither block it nor stay."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rewards import Request, RewardPool, worker

ROOT = str(Path(__file__).parents[3])

pytestmark = [
    pytest.mark.timeout(100),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def stop(pid: int) -> None:
    """Stop a process, and wait until it is."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_batch_that_an_idle_worker_does_not_take_is_graded_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 requests a pool of one worker sends 5 at once: 2 MB, ten times what the socket holds."""
    monkeypatch.setattr(worker, "SEND_TIMEOUT_S", 0.25)
    with RewardPool(1, 60.0, preload=["number"]) as pool:
        assert pool.score("<answer>5</answer>", "5", "number").value == 1.0
        (stopped,) = pool._lanes._live
        stop(stopped.pid)
        texts = [f"{' ' * 400_000}<answer>{number}</answer>" for number in range(8)]
        call = pool._submit([Request(text, "5", "number") for text in texts])
        assert [result.value for result in call.future.result(timeout=60)] == [0.0] * 5 + [1.0] + [0.0] * 2
        assert stopped.reaped and stopped not in pool._lanes._live


def test_a_template_that_answers_too_late_is_replaced() -> None:
    """Its answer must not be taken for that to the next question."""
    with RewardPool(1, 60.0, preload=["number"]) as pool:
        assert pool.score("<answer>5</answer>", "5", "number").value == 1.0
        template, (late,) = pool._template, pool._lanes._live
        first = template._process
        assert first is not None and template._control is not None
        stop(first.pid)
        template._control.settimeout(0.25)
        assert template.reap(late) is None
        assert first.poll() == -signal.SIGKILL
        other = template.fork()
        assert template._process is not first and other.pid != late.pid
        assert template.reap(other) == -signal.SIGKILL
        assert pool.score("<answer>5</answer>", "5", "number").value == 1.0


class Caller:
    """A process with a pool, which says the pids of the pool's template and of its worker."""

    def __init__(self, code: str) -> None:
        code = f"import sys, time\nsys.path.insert(0, {ROOT!r})\nfrom rewards import RewardPool\n{code}"
        self.process = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.pids = [int(pid) for pid in self.process.stdout.readline().split()]
        self.ends = [os.pidfd_open(pid) for pid in self.pids]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def left(self) -> list[int]:
        """Which of the pids have not ended after 20 s."""
        return [pid for pid, end in zip(self.pids, self.ends, strict=True) if not select.select([end], [], [], 20)[0]]

    def close(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        for end in self.ends:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(end, signal.SIGKILL)
            os.close(end)


@pytest.mark.parametrize("stopped", [[0], [1], [0, 1]], ids=["template", "worker", "both"])
def test_what_is_stopped_ends_with_the_caller_that_is_killed(stopped: list[int]) -> None:
    caller = Caller("""
pool = RewardPool(1, 60.0, preload=["number"])
pool.score("", "1", "number")
print(pool._template._process.pid, *[worker.pid for worker in pool._lanes._live], flush=True)
time.sleep(600)
""")
    with contextlib.closing(caller):
        assert len(caller.pids) == 2
        for index in stopped:
            stop(caller.pids[index])
        caller.kill()
        assert caller.left() == []


def test_a_plugin_that_hangs_at_import_ends_with_the_caller_that_is_killed(tmp_path: Path) -> None:
    file, pipe = tmp_path / "own.py", str(tmp_path / "pid")
    os.mkfifo(pipe)
    say = f"with open({pipe!r}, 'w') as file:\n    file.write(str(os.getpid()))"
    file.write_text(f"import os, time\n{say}\ntime.sleep(600)\n")
    caller = Caller(f"""
import threading
settings = {{"preload": [], "plugins": {{"own": {str(file)!r}}}}}
threading.Thread(target=RewardPool, kwargs=settings).start()
print(open({pipe!r}).read(), flush=True)
""")
    with contextlib.closing(caller):
        assert len(caller.pids) == 1
        caller.kill()
        assert caller.left() == []


def test_the_thread_that_made_a_pool_may_end() -> None:
    """Linux tells a process of its parent's end when the thread ends that started it."""
    made: list[RewardPool] = []
    thread = threading.Thread(target=lambda: made.append(RewardPool(1, 60.0, preload=["number"])))
    thread.start()
    thread.join()
    with made[0] as pool:
        template = pool._template._process
        assert template is not None
        for _ in range(2):
            assert pool.score("<answer>5</answer>", "5", "number").value == 1.0
        assert pool._template._process is template and template.poll() is None
