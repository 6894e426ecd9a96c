"""The seccomp filter, as bytes and as what it decides, for each architecture whatever this machine is."""

from __future__ import annotations

import errno
import re
import socket
import struct
from pathlib import Path

import pytest

from rewards.sandbox.inside import linux, seccomp


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
            newer = pair[column] > max(numbers.values()) and name not in numbers  # than these headers
            assert newer or numbers.get(name, -1) == pair[column], (machine, name)
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


def decide(program: bytes, machine: str, call: str | int, *arguments: int) -> str:
    """What the kernel would make of a call: runs the program as seccomp(2) describes it, on a `struct seccomp_data`."""
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}[machine]
    number = call if isinstance(call, int) else {**seccomp.DENIED, **seccomp.CHECKED}[call][machine == "aarch64"]
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *words)
    value, at = 0, 0
    while True:
        code, if_true, if_false, k = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:  # BPF_RET | BPF_K
            return {0x7FFF: "allow", 0x8000: "kill", 0x0005: errno.errorcode.get(k & 0xFFFF, "?")}[k >> 16]
        else:  # BPF_JMP with BPF_JEQ, BPF_JGE, BPF_JSET
            met = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            at += if_true if met else if_false


OPENAT = {"x86_64": 257, "aarch64": 56}
NEWUSER, THREAD, FORK = 0x10000000, 0x00010000, 17  # flags of clone; a fork is SIGCHLD alone


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_the_filter_decides(machine: str) -> None:
    one, many = (seccomp.build(machine, may_fork=may_fork) for may_fork in (False, True))
    for program in (one, many):
        for name, numbers in seccomp.DENIED.items():
            if numbers[machine == "aarch64"] >= 0:
                assert decide(program, machine, name) == "EPERM", name
        expected = [
            ((OPENAT[machine],), "allow"),
            (("clone", NEWUSER | FORK), "EPERM"),
            (("clone", NEWUSER | THREAD), "EPERM"),
            (("clone", THREAD), "allow"),
            (("clone3",), "ENOSYS"),
            (("socket", socket.AF_UNIX), "EAFNOSUPPORT"),
            (("socket", socket.AF_INET), "EAFNOSUPPORT"),
            (("socketpair", socket.AF_UNIX), "allow"),
            (("socketpair", 30), "EAFNOSUPPORT"),
            (("setsockopt", 3, socket.SOL_SOCKET, socket.SO_SNDBUF), "EPERM"),
            (("setsockopt", 3, socket.SOL_SOCKET, socket.SO_RCVBUF), "EPERM"),
            (("setsockopt", 3, socket.SOL_SOCKET, socket.SO_PASSCRED), "allow"),
            (("setsockopt", 3, 6, socket.SO_SNDBUF), "allow"),
            (("fcntl", 3, 1031, 2**20), "EPERM"),
            (("fcntl", 3, 1032), "allow"),
            (("prlimit64", 0, 7, 0x7000), "allow"),
            (("prlimit64", 1, 7, 0x7000), "EPERM"),
            (("prlimit64", 0, 4, 0), "allow"),
            (("prlimit64", 0, 4, 0x7000), "EPERM"),
            (("prlimit64", 0, 4, 1 << 32), "EPERM"),
            (("setrlimit", 4), "EPERM"),
            (("setrlimit", 7), "allow"),
            ((462,), "allow"),
            ((463,), "ENOSYS"),
            ((2**31,), "kill" if machine == "x86_64" else "ENOSYS"),
        ]
        for (call, *arguments), wanted in expected:
            assert decide(program, machine, call, *arguments) == wanted, (call, arguments)
        assert decide(program, "i386", OPENAT[machine]) == "kill"
    assert decide(one, machine, "clone", FORK) == "EAGAIN"
    assert decide(many, machine, "clone", FORK) == "allow"
    other = "aarch64" if machine == "x86_64" else "x86_64"
    assert decide(one, other, OPENAT[other]) == "kill"
    if machine == "x86_64":
        assert decide(one, machine, 0x40000000 + OPENAT[machine]) == "kill"  # x32
        assert [decide(one, machine, name) for name in ("fork", "vfork")] == ["EAGAIN"] * 2
        assert [decide(many, machine, name) for name in ("fork", "vfork")] == ["allow"] * 2
