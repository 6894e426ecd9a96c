"""Attempts to get out of the sandbox. Where it does no harm, the same code is run without isolation and must succeed
there: so it is the sandbox that stops it, and not a mistake in the attempt."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewards.sandbox import SYSTEM_TOOLS, Command, Finished, Limits, Sandbox, capabilities
from rewards.sandbox.inside import seccomp

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not capabilities().namespaces, reason="no namespaces: " + capabilities().problem
)


def run(code: str, box: Sandbox | None = None) -> Finished:
    return (box or Sandbox("namespaces")).run_python(code).commands[0]


def limited(**limits: float) -> Sandbox:
    return Sandbox("namespaces", limits=Limits(**limits))  # type: ignore[arg-type]


def escapes(code: str, box: Sandbox) -> bool:
    """Whether the code gets through; `held` must come from an error of the system, not of the code."""
    indented = "\n".join("    " + line for line in code.splitlines())
    guarded = (
        f"import os, sys\ntry:\n{indented}\nexcept OSError as exc:\n    print('held', exc)\nelse:\n    print('out')"
    )
    finished = run(guarded, box)
    assert finished.ok, finished
    return finished.stdout.strip().endswith(b"out")


def assert_only_isolation_holds(code: str) -> None:
    assert escapes(code, Sandbox("none"))
    assert not escapes(code, Sandbox("namespaces"))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("the expected answer")
    path.chmod(0o644)
    return path


# files


def test_files_of_the_host_can_not_be_read(secret: Path) -> None:
    for path in ("/etc/passwd", str(ROOT / "pyproject.toml"), str(secret)):
        assert_only_isolation_holds(f"open({path!r}).read()")
    for folder in (str(ROOT), "/sys", "/proc", "/home"):
        assert_only_isolation_holds(f"os.listdir({folder!r})")
    assert run("import os; print(sorted(os.listdir('/dev')))").stdout == (
        b"['full', 'null', 'random', 'urandom', 'zero']\n"
    )
    tops = {"dev", "etc", "lib", "lib32", "lib64", "scratch", "tmp", "usr"} | {sys.base_prefix.split("/")[1]}
    seen = run("import os; print(*os.listdir('/'))").stdout.decode().split()
    assert set(seen) <= tops
    assert run("import os; print(os.listdir('/etc'))").stdout in (b"['ld.so.cache']\n", b"")


def test_nothing_outside_the_scratch_folder_can_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    target = tmp_path / "written"
    assert_only_isolation_holds(f"open({str(target)!r}, 'w').write('x')")
    assert target.read_text() == "x"  # by the run without isolation
    for path in ("/x", "/usr/x", "/dev/x", os.__file__, str(Path(os.__file__).parent / "x.py"), sys.base_prefix + "/x"):
        assert not escapes(f"open({path!r}, 'a')", Sandbox("namespaces"))
    assert escapes("open('x', 'w').write('1'); open('/tmp/y', 'w'); open('/scratch/x').read()", Sandbox("namespaces"))


def test_files_out_follow_no_link_and_wait_for_no_pipe(secret: Path) -> None:
    code = f"""
import os
os.symlink({str(secret)!r}, "linked.txt")
os.symlink({str(secret.parent)!r}, "folder")
os.symlink("/dev/zero", "endless")
os.symlink("kept.txt", "alias.txt")
os.mkfifo("pipe")
os.makedirs("a/b")
open("kept.txt", "w").write("mine")
open("a/b/c.bin", "wb").write(bytes(3))
"""
    for box in (Sandbox("namespaces"), Sandbox("none")):
        report = box.run_python(code, outputs=["*"])
        assert report.commands[0].ok, report.commands[0]
        found = {name: content for name, content in report.files.items() if name != "main.py"}
        assert found == {"kept.txt": b"mine", "a/b/c.bin": bytes(3)}
    with pytest.raises(ValueError, match="no relative path inside"):
        Sandbox("namespaces").run_python("pass", files={"../x": b""})
    with pytest.raises(ValueError, match="no relative path inside"):
        Sandbox("namespaces").run_python("pass", files={"/etc/x": b""})


def test_device_nodes_can_not_be_made() -> None:
    code = "import stat; os.mknod('disk', stat.S_IFCHR | 0o666, os.makedev(1, 3))"
    if os.geteuid() == 0:
        assert_only_isolation_holds(code)
    assert not escapes(code, Sandbox("namespaces"))


def test_shared_memory_of_the_host_is_not_there() -> None:
    assert_only_isolation_holds("os.listdir('/dev/shm')")


def test_huge_files_are_refused() -> None:
    code = "file = open('big', 'wb'); file.truncate(5 * 2**20)"
    assert escapes(code, limited(file_mb=6))
    assert not escapes(code, limited(file_mb=4))
    many = "for n in range(8):\n    open(str(n), 'wb').write(bytes(2**20))"
    assert escapes(many, limited(scratch_mb=16))
    assert not escapes(many, limited(scratch_mb=4))
    assert not escapes("for n in range(5_000):\n    open(str(n), 'wb').close()", Sandbox("namespaces"))  # inodes


# network


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[str, Callable[[], bool]]]:
    """Servers of the host; by the code that reaches each, whether somebody has."""
    tmp_path.chmod(0o777)
    name = f"rewards-test-{os.getpid()}"
    addresses: list[tuple[int, int, object]] = [
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "socket")),
        (socket.AF_UNIX, socket.SOCK_STREAM, f"\0{name}"),
    ]
    open_sockets = []
    reached: dict[str, Callable[[], bool]] = {}
    for family, kind, address in addresses:
        server = socket.socket(family, kind)
        open_sockets.append(server)
        server.bind(address)
        if kind == socket.SOCK_STREAM:
            server.listen()
        if isinstance(address, str) and address[0] == "/":
            os.chmod(address, 0o777)
        where = server.getsockname()
        where = where.decode() if isinstance(where, bytes) else where
        code = f"import socket; s = socket.socket({int(family)}, {int(kind)}); s.connect({where!r}); s.send(b'hi')"
        reached[code] = lambda server=server: bool(select.select([server], [], [], 0)[0])
    yield reached
    for server in open_sockets:
        server.close()


def test_no_server_of_the_host_can_be_reached(listeners: dict[str, Callable[[], bool]]) -> None:
    for code, is_reached in listeners.items():
        assert not escapes(code, Sandbox("namespaces"))
        assert not is_reached()
        assert escapes(code, Sandbox("none"))
        assert is_reached()


def test_other_kinds_of_sockets_can_not_be_made() -> None:
    for family in (socket.AF_NETLINK, 40):  # 40: AF_VSOCK, which no network namespace holds back
        assert not escapes(f"import socket; socket.socket({int(family)}, socket.SOCK_DGRAM)", Sandbox("namespaces"))
    assert escapes("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", Sandbox("none"))
    assert escapes("import socket; socket.socketpair()", Sandbox("namespaces"))


# processes


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


_CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if {call} == -1:
    raise OSError(ctypes.get_errno(), "refused")
"""


def test_privileges_can_not_be_had() -> None:
    assert_only_isolation_holds(_CALL.format(call="libc.ptrace(0, 0, 0, 0)"))  # PTRACE_TRACEME
    assert_only_isolation_holds(_CALL.format(call="libc.unshare(0x10000000)"))  # a user namespace of its own
    assert_only_isolation_holds(_CALL.format(call="libc.memfd_create(b'x', 0)"))
    mount = _CALL.format(call="libc.mount(b'x', b'/scratch', b'tmpfs', 0, None)")
    assert not escapes(mount, Sandbox("namespaces"))
    for code in ("os.setuid(0)", "os.setgid(0)", "os.chroot('.')", "os.chown('main.py', 0, 0)"):
        assert not escapes(code, Sandbox("namespaces"))
        if os.geteuid() == 0:
            assert escapes(code, Sandbox("none"))
    held = """
import ctypes, os
libc = ctypes.CDLL(None)
print(sum(libc.prctl(23, n, 0, 0, 0) == 1 for n in range(64)), libc.prctl(39, 0, 0, 0, 0), os.getuid() == 0)
"""
    assert run(held).stdout == b"0 1 False\n"  # no capability in the bounding set, no new privileges


def test_setuid_programs_have_no_effect() -> None:
    box = Sandbox("namespaces", readable=SYSTEM_TOOLS, limits=Limits(processes=4))
    code = """
import os, shutil, subprocess
shutil.copy("/usr/bin/id", "id")
os.chmod("id", 0o6755)
print(subprocess.run(["./id", "-u"], capture_output=True, text=True).stdout.strip() == str(os.getuid()))
print(subprocess.run(["/usr/bin/su", "-c", "id"], capture_output=True, text=True).returncode != 0)
"""
    assert run(code, box).stdout == b"True\nTrue\n"


def test_every_denied_call_is_refused() -> None:
    machine = os.uname().machine
    column = list(seccomp._AUDIT_ARCH).index(machine)
    numbers = {name: pair[column] for name, pair in seccomp.DENIED.items() if pair[column] >= 0}
    code = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for name, number in {numbers!r}.items():
    ctypes.set_errno(0)
    if libc.syscall(number, -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 1:
        print(name, ctypes.get_errno())
"""
    assert run(code).stdout == b""
    unfiltered = run(
        code.replace(repr(numbers), repr({"kcmp": numbers["kcmp"], "bpf": numbers["bpf"]})), Sandbox("none")
    )
    assert unfiltered.stdout != b""


# resources


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


# what is inherited


def test_no_descriptor_is_inherited(secret: Path) -> None:
    code = """
import os
found = []
for number in range(1024):
    try:
        os.fstat(number)
        found.append(number)
    except OSError:
        pass
print(found)
"""
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        plain = subprocess.run([sys.executable, "-c", code], close_fds=False, capture_output=True, check=True)
        assert str(file.fileno()) in plain.stdout.decode()
        assert run(code).stdout == b"[0, 1, 2]\n"


def test_no_variable_of_the_host_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS_TEST_TOKEN", "hush")
    code = "import os; print(os.environ.get('REWARDS_TEST_TOKEN'), os.environ.get('MINE'))"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert plain.stdout == b"hush None\n"
    assert run(code, Sandbox("namespaces", environment={"MINE": "1"})).stdout == b"None 1\n"
    assert run(code, Sandbox("none")).stdout == b"None None\n"
