"""The system calls that the sandbox needs and Python 3.11 has no function for, each raising `OSError` on failure."""

from __future__ import annotations

import ctypes
import os

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x00000080
CLONE_THREAD = 0x00010000

MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
MNT_DETACH = 2
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 36, 38, 47, 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

SIGINT, SIGKILL, SIGPIPE, SIGXCPU, SIGXFSZ = 2, 9, 13, 24, 25

_SYSCALLS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
_MOUNT_SETATTR, _CLOSE_RANGE = 442, 436  # the same number everywhere

MACHINES = tuple(_SYSCALLS)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    code = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(code, f"mount {target}")


def detach(target: str) -> None:
    _check(_libc.umount2(target.encode(), ctypes.c_int(MNT_DETACH)), f"unmount {target}")


def set_host_names(name: str) -> None:
    """Of the namespace that this process is in."""
    _check(_libc.sethostname(name.encode(), ctypes.c_size_t(len(name))), "sethostname")
    _check(_libc.setdomainname(b"", ctypes.c_size_t(0)), "setdomainname")


def pivot_root(new: str, old: str) -> None:
    _syscall(_number("pivot_root"), new.encode(), old.encode(), name="pivot_root")


def make_read_only(path: str, *, recursive: bool, devices: bool = False) -> None:
    """Read-only and without setuid files; without device nodes too unless `devices`. Needs Linux 5.12."""
    wanted = _ATTR_READ_ONLY | _ATTR_NOSUID | (0 if devices else _ATTR_NODEV)
    attr = _MountAttr(wanted, 0, 0, 0)
    flags = ctypes.c_uint(_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    at = ctypes.c_int(_AT_FDCWD)
    _syscall(_MOUNT_SETATTR, at, path.encode(), flags, ctypes.byref(attr), size, name=f"mount_setattr {path}")


def die_with_parent() -> None:
    """SIGKILL for this process when its parent is gone; a change of user or capabilities resets it."""
    _prctl(_PR_SET_PDEATHSIG, SIGKILL)


def set_dumpable(on: bool) -> None:
    """Off: no process of the same user may trace this one or open its memory."""
    _prctl(_PR_SET_DUMPABLE, int(on))


def adopt_orphans() -> None:
    """Processes that lose their parent become children of this one, and not of the machine's init."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """No capability now, and none to be had by starting a program."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, *_words(capability, 0, 0, 0)) != 0:
            break  # EINVAL: past the last one that this kernel knows; EPERM: none is held, so none can be dropped
    _libc.prctl(_PR_CAP_AMBIENT, *_words(_PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _syscall(_number("capset"), header, (ctypes.c_uint32 * 6)(), name="capset")


def install_filter(instructions: bytes) -> None:
    """Put a seccomp program (8 bytes an instruction) on this thread and all that it starts."""
    program = _Filter(len(instructions) // 8, instructions)
    code = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), *_words(0, 0))
    _check(code, "seccomp filter")


def close_from(lowest: int) -> None:
    _syscall(_CLOSE_RANGE, ctypes.c_uint(lowest), ctypes.c_uint(2**32 - 1), ctypes.c_uint(0), name="close_range")


def default_signals(*numbers: int) -> None:
    """Undo what Python has set for some signals; the signal module would do, but takes long to import."""
    for number in numbers:
        _libc.signal(number, None)


def _number(name: str) -> int:
    machine = os.uname().machine
    if machine not in _SYSCALLS:
        raise OSError(38, f"no system call table for {machine}; known: {', '.join(MACHINES)}")
    return _SYSCALLS[machine][name]


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, *_words(value, 0, 0, 0)), f"prctl {option}")


def _words(*values: int) -> list[ctypes.c_ulong]:
    return [ctypes.c_ulong(value) for value in values]  # variadic: a bare int would be passed as 32 bits


def _syscall(number: int, *arguments: object, name: str) -> None:
    _check(_libc.syscall(ctypes.c_long(number), *arguments), name)


def _check(code: int, name: str) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
