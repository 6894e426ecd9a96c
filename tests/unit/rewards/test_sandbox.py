"""The sandbox in use: files, commands, reports, refusals, and where it is called from."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rewards import RewardPool
from rewards.sandbox import Capabilities, Command, Limits, Report, Sandbox, SandboxUnavailable, box, capabilities, probe
from rewards.sandbox import cgroup as cgroup_module
from rewards.sandbox.inside import linux, seccomp
from rewards.sandbox.view import make_view

needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or not capabilities().namespaces, reason="no namespaces: " + capabilities().problem
)


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


# settings and refusals


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


def test_without_isolation_nothing_runs_unless_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    refused = Capabilities(False, "unshare: Operation not permitted", ("sysctl kernel.unprivileged_userns_clone=1",))
    monkeypatch.setattr(probe, "_found", refused)
    marker = tmp_path / "ran"
    with pytest.raises(SandboxUnavailable) as caught:
        Sandbox().run_python(f"open({str(marker)!r}, 'w')")
    assert not marker.exists()
    for part in ("unshare: Operation not permitted", "(1) sysctl", "REWARDS_SANDBOX_IMAGE", "REWARDS_SANDBOX=none"):
        assert part in str(caught.value)
    assert Sandbox(image="python:3.12-slim").mode() == "container"
    assert Sandbox("none").run_python("print(1)").commands[0].stdout == b"1\n"


def test_what_the_kernel_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        box, "_BOOT", box._BOOT.replace("main()", "from inside import linux\nlinux.unshare = deny\nmain()")
    )
    denied = "def deny(flags): raise OSError(1, 'unshare: Operation not permitted')\n"
    monkeypatch.setattr(box, "_BOOT", denied + box._BOOT)
    monkeypatch.setattr(probe, "_found", None)
    found = probe.capabilities()
    assert (found.namespaces, found.problem) == (False, "unshare: Operation not permitted")
    assert found.hints


@needs_namespaces
def test_a_real_refusal() -> None:
    """Inside a sandbox no further one can be made, as on a machine that forbids namespaces."""
    root = str(Path(__file__).resolve().parents[3] / "rewards")
    code = f"""
import sys
sys.path.insert(0, {str(Path(root).parent)!r})
from rewards.sandbox import Sandbox, SandboxUnavailable
try:
    Sandbox().run_python("print('ran')")
except SandboxUnavailable as exc:
    print(exc)
"""
    outer = Sandbox("namespaces", readable=[root], limits=Limits(processes=8, memory_mb=1024))
    finished = outer.run_python(code).commands[0]
    assert b"can't be isolated on this machine (unshare: Operation not permitted)" in finished.stdout
    assert b"ran" not in finished.stdout.replace(b"is not run", b"")


def test_an_interpreter_that_does_not_start_is_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "_BOOT", "import sys; sys.exit(3)")
    with pytest.raises(SandboxUnavailable, match="ended with exit code 3"):
        Sandbox("none").run_python("pass")
    monkeypatch.setattr(box, "interpreter", lambda: "/no/such/python")
    with pytest.raises(SandboxUnavailable, match="can't be started with '/no/such/python'"):
        Sandbox("none").run_python("pass")


# containers and control groups


_STAND_IN = """#!{python} -S
import os, sys
open({log!r}, "a").write(repr(sys.argv[1:]) + chr(10))
if sys.argv[1] == "run":
    options = dict(part[2:].split("=", 1) for part in sys.argv if part.startswith("--") and "=" in part)
    folder = options["volume"].split(":")[0]
    inner = sys.argv[sys.argv.index("python-image") + 1 :]
    inner[0], inner[-1] = {python!r}, os.path.dirname(folder)
    os.execv(inner[0], inner)
"""


def test_a_container_runs_the_launcher(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a program in place of the runtime that starts the launcher without any container: what is tested is the
    command line, and that the launcher works behind a runtime."""
    runtime, log, scratch = tmp_path / "runtime", tmp_path / "log", tmp_path / "scratch"
    runtime.write_text(_STAND_IN.format(python=box.interpreter(), log=str(log)))
    runtime.chmod(runtime.stat().st_mode | stat.S_IXUSR)
    scratch.mkdir()
    monkeypatch.setattr(box, "SCRATCH", str(scratch))
    contained = Sandbox("container", image="python-image", runtime=str(runtime), limits=Limits(memory_mb=256, wall_s=5))
    report = contained.run_python("import os\nopen('o', 'w').write('out')\nos.fork()", outputs=["o"])
    assert report.files == {"o": b"out"}
    assert b"BlockingIOError" in report.commands[0].stderr  # the filter holds without namespaces too
    run, removed = log.read_text().splitlines()
    for part in (
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--memory=384m",
    ):
        assert part in run
    assert re.search(r"'--user=65534:65534'.*'--pids-limit=41'.*'--tmpfs=/scratch:rw,nosuid,nodev,size=64m", run)
    assert removed.startswith("['rm', '--force', 'rewards-")
    with pytest.raises(SandboxUnavailable, match="file descriptors"):
        contained.run([Command(["true"], stdin=os.open(os.devnull, os.O_RDONLY))])
    with pytest.raises(SandboxUnavailable, match="can't be started with '/no/docker'"):
        Sandbox("container", image="python-image", runtime="/no/docker").run_python("pass")


def test_a_folder_that_is_no_control_group_is_refused(tmp_path: Path) -> None:
    grouped = Sandbox("none", cgroup=str(tmp_path / "missing"))
    with pytest.raises(SandboxUnavailable, match=r"missing can't be used.*cgroup\.subtree_control"):
        grouped.run_python("pass")


def test_the_limits_of_a_control_group(tmp_path: Path) -> None:
    limits = Limits(memory_mb=100, scratch_mb=36, processes=3, threads=9)
    with cgroup_module.child(str(tmp_path), limits) as group:
        assert group is not None
        assert (group / "memory.max").read_text() == str(200 * 2**20)  # and 64 for the launcher
        assert (group / "pids.max").read_text() == "20"
        assert not cgroup_module.ran_out_of_memory(group)
        (group / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 1\n")
        assert cgroup_module.ran_out_of_memory(group)
        for file in group.iterdir():
            file.unlink()  # in a real group the kernel's files don't keep the folder
    assert not group.exists()


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


# the filter


def test_call_numbers_are_those_of_the_kernel_headers() -> None:
    sources = {
        "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
        "aarch64": "/usr/include/asm-generic/unistd.h",
    }
    found = {machine: Path(path).read_text() for machine, path in sources.items() if Path(path).exists()}
    if not found:
        pytest.skip("no kernel headers here")
    for machine, text in found.items():
        column = linux.MACHINES.index(machine)
        numbers = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
        for name, pair in {**seccomp.DENIED, **seccomp.CHECKED}.items():
            assert numbers.get(name, -1) == pair[column], (machine, name)
        for name, number in linux._SYSCALLS[machine].items():
            assert numbers[name] == number


def test_a_filter_by_hand() -> None:
    program = seccomp.build("aarch64", may_fork=True)
    steps = [program[start : start + 8] for start in range(0, len(program), 8)]
    assert steps[0] == bytes([0x20, 0, 0, 0, 4, 0, 0, 0])  # load the architecture
    assert steps[1] == bytes([0x15, 0, 1, 0, 0xB7, 0, 0, 0xC0])  # AUDIT_ARCH_AARCH64: skip the next
    assert steps[2] == bytes([0x06, 0, 0, 0, 0, 0, 0, 0x80])  # kill
    assert steps[-1] == bytes([0x06, 0, 0, 0, 0, 0, 0xFF, 0x7F])  # allow
    assert len(seccomp.build("x86_64", may_fork=False)) > len(seccomp.build("x86_64", may_fork=True))
    with pytest.raises(OSError, match="no seccomp table for riscv64; known: x86_64, aarch64"):
        seccomp.build("riscv64", may_fork=True)
