"""Attempts on files of the host, on its sockets, and on what a process inherits."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewards.sandbox import Sandbox
from rewards.sandbox import box as box_module
from tests.unit.rewards.escapes import CALL, ROOT, assert_only_isolation_holds, escapes, limited, needs_namespaces, run

pytestmark = needs_namespaces


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("the expected answer")
    path.chmod(0o644)
    return path


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


def test_the_machine_is_not_named() -> None:
    code = "import os; print(os.uname().nodename)"
    assert run(code).stdout == b"sandbox\n"
    assert run(code, Sandbox("none")).stdout.decode().strip() == os.uname().nodename


def test_what_the_host_does_with_its_files_can_not_be_watched() -> None:
    assert_only_isolation_holds(CALL.format(call="libc.inotify_init1(0)"))
    assert not escapes(CALL.format(call="libc.inotify_init()"), Sandbox("namespaces"))


def test_folders_deeper_than_python_can_follow_are_left_out_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    real = box_module.tempfile.mkdtemp
    monkeypatch.setattr(box_module.tempfile, "mkdtemp", lambda **more: made.append(real(**more)) or made[-1])
    code = "import os\nfor n in range(1_500):\n    os.mkdir('d')\n    os.chdir('d')\nopen('f', 'w').close()"
    for mode in ("namespaces", "none"):
        report = Sandbox(mode).run_python(code, outputs=["*"])  # type: ignore[arg-type]
        assert (report.commands[0].ok, list(report.files)) == (True, ["main.py"])
    assert made and not os.path.exists(made[0])


def test_huge_files_are_refused() -> None:
    code = "file = open('big', 'wb'); file.truncate(5 * 2**20)"
    assert escapes(code, limited(file_mb=6))
    assert not escapes(code, limited(file_mb=4))
    many = "for n in range(8):\n    open(str(n), 'wb').write(bytes(2**20))"
    assert escapes(many, limited(scratch_mb=16))
    assert not escapes(many, limited(scratch_mb=4))
    assert not escapes("for n in range(5_000):\n    open(str(n), 'wb').close()", Sandbox("namespaces"))  # inodes


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
    assert escapes("import socket; a, b = socket.socketpair(); a.send(b'x')", Sandbox("namespaces"))
    # Making a pair of a strange kind would have the kernel load the module for it: here it has not been asked.
    strange = "import ctypes, os; b = (ctypes.c_int * 2)(); libc = ctypes.CDLL(None, use_errno=True)\n"
    strange += "print(libc.socketpair(2, 1, 0, b), os.strerror(ctypes.get_errno()))"
    assert run(strange).stdout == b"-1 Address family not supported by protocol\n"
    assert run(strange, Sandbox("none")).stdout == b"-1 Operation not supported\n"


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
