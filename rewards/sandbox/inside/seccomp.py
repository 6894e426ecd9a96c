"""The seccomp filter of the untrusted program: what namespaces alone leave open, and kernel surface nobody needs.

A list of what is denied, not of what is allowed: the walls are the namespaces, the read-only view and the missing
capabilities, and a list of all that Python, NumPy and a shell may call would break with every new C library. Calls that
are newer than this list do not exist inside; C libraries expect that of an older kernel.
"""

from __future__ import annotations

from . import linux

_EPERM, _EAGAIN, _ENOSYS, _EAFNOSUPPORT = 1, 11, 38, 97
_AF_UNIX, _SOL_SOCKET, _SO_SNDBUF, _SO_RCVBUF = 1, 1, 7, 8
_F_SETPIPE_SZ, _RLIMIT_CORE = 1031, 4
_FIRST_UNKNOWN = 463
"""The first call that this list does not know; from 424 on the numbers are the same everywhere."""

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# name: (number on x86_64, number on aarch64); -1 where the architecture has no such call.
DENIED: dict[str, tuple[int, int]] = {
    # other processes: their memory, descriptors and limits
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    # memory that no limit of ours counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # counts that all programs of the user share
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    # calls that this filter would not see
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # kernel surface with a history
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "fanotify_init": (300, 262),
    "personality": (135, 92),
    "modify_ldt": (154, -1),
    "vmsplice": (278, 75),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "syslog": (103, 116),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, -1),
    "ioperm": (173, -1),
    "clock_settime": (227, 112),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
}
CHECKED: dict[str, tuple[int, int]] = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "setsockopt": (54, 208),
    "fcntl": (72, 25),
    "prlimit64": (302, 261),
    "setrlimit": (160, 164),
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, -1),
    "vfork": (58, -1),
}

_NEW_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWTIME
)

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def build(machine: str, *, may_fork: bool) -> bytes:
    """The filter as instructions of 8 bytes; without `may_fork` the program can start threads but no process.

    Raises:
        OSError: no table for this architecture.
    """
    if machine not in _AUDIT_ARCH:
        raise OSError(_ENOSYS, f"no seccomp table for {machine}; known: {', '.join(_AUDIT_ARCH)}")
    column = linux.MACHINES.index(machine)
    program = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _KILL),  # calls of another architecture have other numbers
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        program += [_step(_AT_LEAST, _X32_BIT, 0, 1), _step(_RETURN, _KILL)]
    program += [_step(_AT_LEAST, _FIRST_UNKNOWN, 0, 1), _fail(_ENOSYS)]
    for numbers in DENIED.values():
        program += _refuse(numbers[column], _EPERM)
    for name, error, *conditions in _rules(may_fork):
        program += _refuse(CHECKED[name][column], error, *conditions)
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _rules(may_fork: bool) -> list:
    """(call, error, conditions): refused if all conditions hold: (offset, comparison, value, its outcome)."""
    first, second, third = (_ARGUMENTS + 8 * number for number in range(3))  # the low words, which come first
    rules = [
        ("clone3", _ENOSYS),  # its flags lie in memory; the C library falls back to clone
        ("clone", _EPERM, (first, _ANY_BIT, _NEW_NAMESPACES, True)),
        # A network namespace does not hold AF_VSOCK, which reaches the host of a virtual machine. And what waits in the
        # sockets behind one that listens is memory that no limit counts: only pairs are left.
        ("socket", _EAFNOSUPPORT),
        ("socketpair", _EAFNOSUPPORT, (first, _EQUAL, _AF_UNIX, False)),
        ("setsockopt", _EPERM, (second, _EQUAL, _SOL_SOCKET, True), (third, _EQUAL, _SO_SNDBUF, True)),
        ("setsockopt", _EPERM, (second, _EQUAL, _SOL_SOCKET, True), (third, _EQUAL, _SO_RCVBUF, True)),
        ("fcntl", _EPERM, (second, _EQUAL, _F_SETPIPE_SZ, True)),
        ("prlimit64", _EPERM, (first, _EQUAL, 0, False)),  # its own limits only
        # The limit of 1 keeps a core from the host's handler, which 0 does not (core(5)).
        ("setrlimit", _EPERM, (first, _EQUAL, _RLIMIT_CORE, True)),
        ("prlimit64", _EPERM, (second, _EQUAL, _RLIMIT_CORE, True), (third, _EQUAL, 0, False)),
        ("prlimit64", _EPERM, (second, _EQUAL, _RLIMIT_CORE, True), (third + 4, _EQUAL, 0, False)),
    ]
    if not may_fork:
        rules += [
            ("fork", _EAGAIN),
            ("vfork", _EAGAIN),
            ("clone", _EAGAIN, (first, _ANY_BIT, linux.CLONE_THREAD, False)),
        ]
    return rules


def _refuse(number: int, error: int, *conditions: tuple) -> list:
    """An error for a call, where all conditions hold; -1 is no call."""
    if number < 0:
        return []
    steps = [_fail(error)]
    for offset, comparison, value, outcome in reversed(conditions):
        past = len(steps)
        steps = [_step(_LOAD, offset), _step(comparison, value, *((0, past) if outcome else (past, 0))), *steps]
    test = _step(_EQUAL, number, 0, len(steps))
    # A condition leaves an argument where the number was.
    return [test, *steps, _step(_LOAD, _NUMBER)] if conditions else [test, *steps]


def _fail(error: int) -> bytes:
    return _step(_RETURN, _ERROR | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: u16 code, u8 and u8 jumps, u32 value."""
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + value.to_bytes(4, "little")
