"""The sandbox in use: files, commands, reports, settings, and where it is called from."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rewards import RewardPool
from rewards.sandbox import Command, Limits, Report, Sandbox
from rewards.sandbox.view import make_view
from tests.unit.rewards.escapes import needs_namespaces


@pytest.fixture(params=["none", pytest.param("namespaces", marks=needs_namespaces)])
def any_box(request: pytest.FixtureRequest) -> Sandbox:
    return Sandbox(request.param)


def python(box: Sandbox, code: str, **more: object) -> Command:
    return Command([box.python, "-S", "-c", code], **more)  # type: ignore[arg-type]


def test_files_in_and_files_out(any_box: Sandbox) -> None:
    code = (
        "data = open('in/a.bin', 'rb').read()\nopen('out.bin', 'wb').write(data[::-1])\nopen('log.txt', 'w').write('x')"
    )
    payload = bytes(range(256)) * 4096  # a MiB
    report = any_box.run_python(code, files={"in/a.bin": payload}, outputs=["out.bin", "*.csv"])
    assert report.commands[0].ok
    assert report.files == {"out.bin": payload[::-1]}
    assert set(any_box.run_python(code, files={"in/a.bin": b""}, outputs=["*.txt", "in/*"]).files) == {
        "log.txt",
        "in/a.bin",
    }
    assert any_box.run_python(code, files={"in/a.bin": b""}).files == {}


def test_files_over_the_limits(any_box: Sandbox) -> None:
    small = Sandbox(any_box.isolation, limits=Limits(files_out=3, files_out_mb=1, files_in_mb=1))
    code = "for n in range(5): open(f'{n}', 'wb').write(bytes(400_000))"
    report = small.run_python(code, outputs=["[0-9]"])
    assert list(report.files) == ["0", "1"]  # two of 400 kB fit into a MiB
    assert report.left_out == ("2", "3", "4")
    code = "for n in range(5): open(f'{n}', 'wb').write(b'x')"
    assert list(small.run_python(code, outputs=["[0-9]"]).files) == ["0", "1", "2"]
    with pytest.raises(ValueError, match="1048577 bytes, over the limit of 1 MiB"):
        small.run_python("pass", files={"a": bytes(2**20 - 3)})  # and the 4 bytes of the program


def test_a_command_reads_stdin_and_reports_how_it_ended(any_box: Sandbox) -> None:
    code = "import sys; text = sys.stdin.read(); print(len(text)); print('oops', file=sys.stderr); sys.exit(7)"
    finished = any_box.run_python(code, stdin=b"x" * 3_000_000).commands[0]
    assert (finished.exit_code, finished.ended_by, finished.ok) == (7, "", False)
    assert (finished.stdout, finished.stderr) == (b"3000000\n", b"oops\n")
    assert finished.cpu_s > 0 and finished.peak_mb > 4
    unread = any_box.run_python("print('done')", stdin=b"x" * 3_000_000).commands[0]
    assert (unread.ok, unread.stdout) == (True, b"done\n")
    assert any_box.run_python("import os; os.abort()").commands[0].exit_code == -6
    missing = any_box.run([Command(["no-such-program"])]).commands[0]
    assert missing.exit_code == 127
    assert b"can't be started" in missing.stderr


def test_commands_run_in_order_and_share_the_folder(any_box: Sandbox) -> None:
    commands = [
        python(any_box, "open('n', 'a').write('1')"),
        python(any_box, "1 / 0"),
        python(any_box, "print(open('n').read())"),
    ]
    report = any_box.run(commands)
    assert [finished.exit_code for finished in report.commands] == [0, 1, 0]
    assert report.commands[2].stdout == b"1\n"
    assert len(any_box.run(commands, stop_on_failure=True).commands) == 2


def test_the_time_for_all_commands_together(any_box: Sandbox) -> None:
    report = any_box.run([python(any_box, "import time; time.sleep(600)")] * 3, wall_s=1.0)
    assert [finished.ended_by for finished in report.commands] == ["wall"]  # the others were never started
    own = [python(any_box, "import time; time.sleep(600)", wall_s=0.3), python(any_box, "print(1)")]
    assert [finished.ended_by for finished in any_box.run(own).commands] == ["wall", ""]


def test_two_programs_can_be_connected(any_box: Sandbox) -> None:
    to_second, from_first = os.pipe()
    reports: list[Report] = []

    def second() -> None:
        reports.append(any_box.run([python(any_box, "print(input() * 2)", stdin=to_second)]))

    thread = threading.Thread(target=second)
    thread.start()
    any_box.run([python(any_box, "print('ab')", stdout=from_first)])
    thread.join()
    assert reports[0].commands[0].stdout == b"abab\n"
    for number in (to_second, from_first):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)  # the runs have taken them over


def test_many_threads_at_once(any_box: Sandbox) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(2):
            if any_box.run_python(f"print({number} ** 2)").commands[0].stdout != b"%d\n" % number**2:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_code_without_isolation_may_kill_its_supervisor_and_gains_an_end() -> None:
    report = Sandbox("none").run_python("import os, sys; print('hi', flush=True); os.kill(os.getppid(), 9)")
    assert (report.commands[-1].ended_by, report.commands[-1].ok) == ("killed", False)


@needs_namespaces
def test_packages_of_the_environment() -> None:
    code = "import numpy; print(numpy.arange(4).sum())"
    limits = Limits(memory_mb=1024)
    assert Sandbox("namespaces", limits=limits, packages=True).run_python(code).commands[0].stdout == b"6\n"
    assert b"ModuleNotFoundError" in Sandbox("namespaces", limits=limits).run_python(code).commands[0].stderr


@needs_namespaces
def test_chosen_paths_are_shown(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("shown")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    shown = Sandbox("namespaces", readable=[str(tmp_path / "link")])
    code = f"import os; print(open({str(tmp_path / 'link' / 'a.txt')!r}).read(), os.listdir({str(tmp_path)!r}))"
    assert shown.run_python(code).commands[0].stdout.startswith(b"shown ")
    write = f"open({str(tmp_path / 'data' / 'b.txt')!r}, 'w')"
    assert b"Read-only" in shown.run_python(write).commands[0].stderr


def test_a_view_leaves_out_what_another_path_shows(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "l").symlink_to("a")
    view = make_view([str(tmp_path / name) for name in ("a", "a/b", "l", "l/b", "missing")])
    assert view.paths == (str(tmp_path / "a"),)
    assert view.links == {str(tmp_path / "l"): str(tmp_path / "a")}


# settings


def test_settings_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"memory_mb is 0; set a number above 0"):
        Limits(memory_mb=0)
    with pytest.raises(ValueError, match="whole numbers"):
        Limits(cpu_s=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'jail' is not known; use one of auto, namespaces, container, none"):
        Sandbox("jail")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs an image"):
        Sandbox("container")
    with pytest.raises(ValueError, match="no command"):
        Sandbox("none").run([])


def test_settings_of_the_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS_SANDBOX", "container")
    monkeypatch.setenv("REWARDS_SANDBOX_IMAGE", "python:3.12-slim")
    monkeypatch.setenv("REWARDS_SANDBOX_RUNTIME", "podman")
    made = Sandbox.from_environment(packages=True)
    assert (made.isolation, made.image, made.runtime, made.packages) == (
        "container",
        "python:3.12-slim",
        "podman",
        True,
    )
    monkeypatch.setenv("REWARDS_SANDBOX", "off")
    with pytest.raises(ValueError, match="'off' is not known"):
        Sandbox.from_environment()


# called from elsewhere


@needs_namespaces
def test_from_the_workers_of_a_pool() -> None:
    answer = "```python\nprint(int(input()) + 1)\n```"
    with RewardPool(workers=2, preload=["general-code"]) as pool:
        result = pool.score(answer, '{"inputs": ["1", "41"], "outputs": ["2", "42"]}', "general-code")
    assert (result.status, result.value, result.components["pass_fraction"]) == ("ok", 1.0, 1.0)


@needs_namespaces
def test_more_memory_than_the_caller_may_give_is_refused() -> None:
    code = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
sys.path.insert(0, {str(Path(__file__).resolve().parents[3])!r})
from rewards.sandbox import Limits, Sandbox
try:
    Sandbox("none", limits=Limits(memory_mb=2048)).run_python("pass")
except ValueError as exc:
    print(exc)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "may only give 1024 MiB" in done.stdout
