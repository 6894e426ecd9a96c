"""Attempts on the kernel: privileges, calls that are not for programs, memory and counts that no limit bounds."""

from __future__ import annotations

import os
import signal

import pytest

from rewards.sandbox import SYSTEM_TOOLS, Limits, Sandbox
from rewards.sandbox.inside import seccomp
from tests.unit.rewards.escapes import CALL, assert_only_isolation_holds, escapes, needs_namespaces, run

pytestmark = needs_namespaces


def test_privileges_can_not_be_had() -> None:
    assert_only_isolation_holds(CALL.format(call="libc.ptrace(0, 0, 0, 0)"))  # PTRACE_TRACEME
    assert_only_isolation_holds(CALL.format(call="libc.unshare(0x10000000)"))  # a user namespace of its own
    assert_only_isolation_holds(CALL.format(call="libc.memfd_create(b'x', 0)"))
    mount = CALL.format(call="libc.mount(b'x', b'/scratch', b'tmpfs', 0, None)")
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


def test_calls_of_other_architectures_end_the_program() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("x86_64 alone has three tables of calls")
    getpid_of_i386 = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000 cd80 c3"))  # mov eax, 20; int 0x80; ret
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))() > 0)
"""
    getpid_of_x32 = "import ctypes; print(ctypes.CDLL(None).syscall(0x40000000 + 39))"
    for code in (getpid_of_i386, getpid_of_x32):
        finished = run(code)
        # SIGSYS, or SIGSEGV from a kernel that does not know such calls at all
        assert finished.exit_code in (-signal.SIGSYS, -signal.SIGSEGV) and finished.stdout == b""


def test_calls_newer_than_the_filter_do_not_exist() -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for number in range(463, 600):
    ctypes.set_errno(0)
    if libc.syscall(number, -1, -1, -1, -1, -1, -1) != -1 or ctypes.get_errno() != 38:
        print(number, ctypes.get_errno())
"""
    assert run(code).stdout == b""


def test_a_crash_leaves_no_core_with_the_host() -> None:
    """A limit of 1 byte, and it stays: with 0 the kernel would start a handler that /proc/sys/kernel/core_pattern
    names, as root and outside (core(5))."""
    read = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
    assert run(read).stdout == b"(1, 1)\n"
    lower = "import resource; resource.prlimit(0, resource.RLIMIT_CORE, (0, 1))"
    assert_only_isolation_holds(lower)
    # by the older call, and with a pointer whose lower half is 0
    limit = "page = __import__('mmap').mmap(-1, 16)\n" + CALL.format(call="libc.syscall(160, 4, bytes(16))")
    high = CALL.format(call="libc.syscall(302, 0, 4, ctypes.c_void_p(1 << 32), None)")
    if os.uname().machine == "x86_64":
        assert_only_isolation_holds(limit)
        assert not escapes(high, Sandbox("namespaces"))
    assert run("import os; os.abort()").exit_code == -signal.SIGABRT


def test_signals_that_wait_are_few() -> None:
    code = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])
count = 0
while count < 2000 and libc.sigqueue(os.getpid(), signal.SIGRTMIN, None) == 0:
    count += 1
print(count)
"""
    assert run(code).stdout == b"128\n"
    assert run(code, Sandbox("none")).stdout == b"2000\n"


_FILL = """
import socket
total, kept = 0, []
try:
    for number in range(40):
        one, other = socket.socketpair()
        kept += [one, other]
        one.setblocking(False)
        {grow}
        try:
            while True:
                total += one.send(bytes(100_000))
        except BlockingIOError:
            pass
finally:
    print(total // 2**20)
"""


def test_sockets_hold_little_memory() -> None:
    """What lies in them is the kernel's memory, which the limit on a process does not count."""
    grow = "one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 2**20)"
    assert int(run(_FILL.format(grow="pass")).stdout) < 20
    grown = run(_FILL.format(grow=grow))
    assert (grown.stdout, grown.stderr.strip().endswith(b"Operation not permitted")) == (b"0\n", True)
    listening = "import socket; socket.socket(socket.AF_UNIX).listen(4096)"  # each that connects could bring data
    assert not escapes(listening, Sandbox("namespaces"))


def test_pipes_can_not_be_made_larger() -> None:
    """All pipes of a user share a number of pages, also those of the next sandbox."""
    assert_only_isolation_holds("import fcntl; fcntl.fcntl(os.pipe()[1], fcntl.F_SETPIPE_SZ, 2**20)")
    assert escapes("import fcntl; fcntl.fcntl(os.pipe()[1], fcntl.F_GETPIPE_SZ)", Sandbox("namespaces"))


def test_other_shared_memory_can_not_be_had() -> None:
    for call in ("libc.shmget(0, 4096, 0o1600)", "libc.msgget(0, 0o1600)", "libc.semget(0, 1, 0o1600)"):
        assert_only_isolation_holds(CALL.format(call=call).replace("-1:", "-1:", 1))


def test_the_clock_can_not_be_set() -> None:
    assert not escapes("import time; time.clock_settime(time.CLOCK_REALTIME, time.time())", Sandbox("namespaces"))


def test_priority_can_not_be_raised() -> None:
    code = "os.nice(5); os.nice(-5)"
    assert not escapes(code, Sandbox("namespaces"))
    assert not escapes("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", Sandbox("namespaces"))
