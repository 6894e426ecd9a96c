"""Attempts on other processes, to outlive the run, and to have more of the machine than the limits allow."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from rewards.sandbox import Command, Limits, Sandbox
from tests.unit.rewards.escapes import ROOT, assert_only_isolation_holds, escapes, limited, needs_namespaces, run

pytestmark = needs_namespaces


_COUNT_FORKS = """
import os, time
count = 0
try:
    for _ in range(60):
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    pass
print(count)
"""


def test_a_fork_bomb_has_few_sparks() -> None:
    assert run(_COUNT_FORKS).stdout == b"0\n"  # one process is the default
    assert run(_COUNT_FORKS, limited(processes=4, threads=1)).stdout == b"4\n"  # of 4 + 1 tasks one is the program
    assert run(_COUNT_FORKS, Sandbox("none")).stdout == b"60\n"
    bomb = run("import os\nwhile True:\n    os.fork()", limited(processes=8, wall_s=2))
    assert not bomb.ok


def test_threads_are_counted() -> None:
    code = """
import threading, time
try:
    for count in range(100):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    print(count)
"""
    assert run(code, limited(threads=5)).stdout == b"5\n"
    assert run(code, limited(threads=5, processes=3)).stdout == b"7\n"
    assert run(code, Sandbox("none", limits=Limits(memory_mb=8192))).stdout == b""


def test_nothing_outlives_the_run() -> None:
    daemon = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(3, 100)
        time.sleep(600)
    os._exit(0)
os.wait()
os.write(1, b"started")
"""
    for box in (limited(processes=4), Sandbox("none", limits=Limits(processes=4))):
        read_end, write_end = os.pipe()
        command = Command([box.python, "-S", "main.py"], stdout=write_end)
        finished = box.run([command], files={"main.py": daemon.encode()}).commands[0]
        assert finished.ok
        with os.fdopen(read_end, "rb", buffering=0) as pipe:
            assert pipe.read(100) == b"started"
            assert select.select([pipe], [], [], 0)[0]
            assert pipe.read(100) == b""  # the daemon held the other end: it is gone


def test_what_is_started_at_exit_dies_too() -> None:
    code = """
import atexit, os, time
def later():
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
        open("late", "w").write("x")
atexit.register(later)
print("done")
"""
    report = limited(processes=3, wall_s=60).run_python(code, outputs=["late"])
    assert (report.commands[0].ok, report.commands[0].stdout, report.files) == (True, b"done\n", {})
    assert report.commands[0].wall_s < 30


def test_a_chain_of_processes_that_each_start_the_next_ends() -> None:
    """Nobody of it lives long enough to be found by its number."""
    code = "import os\nwhile True:\n    if os.fork():\n        os._exit(0)\n    os.setsid()"
    for box in (limited(processes=8), Sandbox("none")):
        finished = run(code, box)
        assert finished.wall_s < 30  # the program's first process ends at once, and the others with it


def test_a_child_that_keeps_the_output_open_does_not_delay_the_end() -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(600)\nprint('done')"
    finished = run(code, limited(processes=2, wall_s=60))
    assert (finished.ok, finished.stdout) == (True, b"done\n")
    assert finished.wall_s < 30


def test_the_sandbox_dies_with_its_caller() -> None:
    read_end, write_end = os.pipe()
    caller = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from rewards.sandbox import Command, Sandbox
box = Sandbox("namespaces")
code = "import os, time; os.write(1, b'up'); time.sleep(600)"
box.run([Command([box.python, "-S", "-c", code], stdout={write_end}, wall_s=600)])
"""
    process = subprocess.Popen([sys.executable, "-P", "-c", caller], pass_fds=[write_end])
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        assert pipe.read(2) == b"up"
        process.kill()
        process.wait()
        assert select.select([pipe], [], [], 20)[0]
        assert pipe.read(2) == b""


def test_the_supervisor_can_not_be_hurt() -> None:
    box = limited(processes=4)
    attack = """
import os, signal, resource
for number in set(signal.Signals) - {signal.SIGCONT}:
    os.kill(os.getppid(), number)
    os.kill(1, number)
try:
    resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))
    print("limited")
except PermissionError:
    print("held")
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass  # there is nobody else
print(os.getppid())
"""
    report = box.run([Command([box.python, "-S", "-c", attack]), Command([box.python, "-S", "-c", "print('next')"])])
    assert [finished.stdout for finished in report.commands] == [b"held\n1\n", b"next\n"]


def test_processes_of_the_host_can_not_be_seen() -> None:
    assert_only_isolation_holds(f"os.kill({os.getpid()}, 0)")
    assert_only_isolation_holds(f"os.getpgid({os.getpid()})")
    for name in ("environ", "mem", "fd", "cmdline"):
        opened = f"os.open('/proc/{os.getpid()}/{name}', os.O_RDONLY)"
        assert_only_isolation_holds(opened)
    assert not escapes("os.listdir('/proc')", Sandbox("namespaces"))


def test_memory_is_bounded() -> None:
    for code in ("bytearray(200 * 2**20)", "import mmap; mmap.mmap(-1, 200 * 2**20)", "list(range(20_000_000))"):
        assert run(code, limited(memory_mb=1024)).ok
        finished = run(code, limited(memory_mb=128))
        assert not finished.ok
        assert finished.peak_mb < 128
    assert run("bytearray(200 * 2**20)", limited(memory_mb=128)).ended_by == "memory"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_of_output_ends_the_program(stream: str) -> None:
    finished = run(f"import sys\nwhile True:\n    sys.{stream}.write('spam' * 1000)", limited(output_kb=64))
    assert finished.ended_by == "output"
    assert len(getattr(finished, stream)) == 64 * 1024


def test_output_that_trickles_ends_at_the_wall() -> None:
    finished = run("import time\nwhile True:\n    print('x', flush=True)\n    time.sleep(0.05)", limited(wall_s=1))
    assert finished.ended_by == "wall"
    assert set(finished.stdout) == set(b"x\n")


def test_processor_time_is_bounded() -> None:
    assert run("while True: pass", limited(cpu_s=1, wall_s=60)).ended_by == "cpu"
    stubborn = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    finished = run(stubborn, limited(cpu_s=1, wall_s=60))
    assert (finished.ended_by, finished.exit_code) == ("cpu", -signal.SIGKILL)


def test_sleeping_for_ever_ends_at_the_wall() -> None:
    stubborn = """
import signal, sys, time
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
print("asleep", flush=True)
sys.stdout.close()
time.sleep(600)
"""
    finished = run(stubborn, limited(wall_s=3))
    assert (finished.ended_by, finished.exit_code, finished.stdout) == ("wall", -signal.SIGKILL, b"asleep\n")
    assert 3 <= finished.wall_s < 20
