"""The sandbox on machines of other kinds: without namespaces, in containers, with control groups, as other users."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rewards.sandbox import Capabilities, Command, Limits, Sandbox, SandboxUnavailable, box, probe
from rewards.sandbox import cgroup as cgroup_module
from tests.unit.rewards.escapes import ROOT, needs_namespaces


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


def test_a_folder_that_the_kernel_does_not_fill_is_refused(tmp_path: Path) -> None:
    """A limit written to an ordinary folder would bound nothing."""
    grouped = Sandbox("none", cgroup=str(tmp_path))
    with pytest.raises(SandboxUnavailable, match=r"made no cgroup\.procs and no memory\.max and no pids\.max in .*v2"):
        grouped.run_python("pass")
    assert list(tmp_path.iterdir()) == []


def test_a_group_without_the_controllers_is_refused() -> None:
    """A real group of version 2 whose controllers belong to version 1, or are not handed down."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for root in (Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"):
        parent = root / f"rewards-test-{os.getpid()}"
        try:
            parent.mkdir()
        except OSError:
            continue
        try:
            assert (parent / "cgroup.procs").exists()
            with pytest.raises(SandboxUnavailable, match=r"made no memory\.max.*cgroup\.subtree_control"):
                Sandbox("none", cgroup=str(parent)).run_python("pass")
            assert not [path for path in parent.iterdir() if path.is_dir()]
        finally:
            parent.rmdir()
        return
    pytest.skip("no group of version 2 can be made here")


def test_the_limits_of_a_control_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = Limits(memory_mb=100, scratch_mb=36, processes=3, threads=9)
    make = Path.mkdir

    def make_group(path: Path) -> None:  # as the kernel does
        make(path)
        for name in ("cgroup.procs", "memory.max", "pids.max"):
            (path / name).touch()

    monkeypatch.setattr(Path, "mkdir", make_group)
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


# other users


_AS_OTHERS = """
import ctypes, os, sys
sys.path.insert(0, {root!r})
who = sys.argv[1]
if who == "user":
    os.setgroups([])
    os.setresgid(12345, 12345, 12345)
    os.setresuid(12345, 12345, 12345)
elif who == "container":  # root, but without CAP_SYS_ADMIN (21)
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.prctl(24, 21, 0, 0, 0) == 0 and libc.capget(header, sets) == 0
    for number in range(3):
        sets[number] &= ~(1 << 21)
    assert libc.capset(header, sets) == 0
from rewards.sandbox import Sandbox, capabilities
if not capabilities().namespaces:
    sys.exit(capabilities().problem)
code = '''
import os
print(os.getuid(), sorted(os.listdir("/scratch")), [p for p in ("/usr", "/etc/passwd", "/proc") if os.path.exists(p)])
for attempt in (lambda: os.setuid(0), lambda: open("/usr/x", "w"), os.fork):
    try:
        attempt()
        print("out")
    except OSError:
        pass
'''
report = Sandbox("namespaces").run_python(code, files={{"in": b"1"}}, outputs=["in"])
print(report.commands[0].stdout.decode() + report.commands[0].stderr.decode(), dict(report.files))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder with the package in it that every user can read; pytest's own and the checkout may be closed to them."""
    with tempfile.TemporaryDirectory(prefix="rewards-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "rewards", folder / "rewards", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


@pytest.mark.parametrize(("who", "inside"), [("root", 65534), ("user", 12345), ("container", 65534)])
def test_it_holds_for_whoever_calls(open_folder: Path, who: str, inside: int) -> None:
    """Root makes the namespaces itself, others as owners of a user namespace, and so does root of a container."""
    if os.geteuid() != 0:
        pytest.skip("only root can become the others")
    python = _readable_python()
    script = open_folder / "script.py"
    script.write_text(_AS_OTHERS.format(root=str(open_folder)))
    done = subprocess.run([python, "-P", str(script), who], capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0 and who != "root":
        pytest.skip(f"this machine gives no namespaces to others: {done.stderr.strip()[-200:]}")
    assert done.stdout == f"{inside} ['in', 'main.py'] ['/usr']\n {{'in': b'1'}}\n", done.stderr


def _readable_python() -> str:
    """A Python that every user may run."""
    for path in (box.interpreter(), "/usr/bin/python3", "/usr/local/bin/python3"):
        if os.path.exists(path) and probe._closed_folder(os.path.realpath(path)) is None:
            new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([path, "-c", new_enough], check=False).returncode == 0:
                return path
    pytest.skip("no Python 3.11 here that every user may run")


def test_a_python_that_only_root_can_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setattr(probe, "interpreter", lambda: str(tmp_path / "bin" / "python3"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    closed = probe._closed_folder(str(tmp_path / "bin" / "python3"))
    assert closed is not None and closed in (tmp_path, *tmp_path.parents)
    assert any(f"{closed} is open to root alone" in hint for hint in probe._hints())


def test_a_pod_is_told_what_to_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert any("securityContext" in hint for hint in probe._hints())
