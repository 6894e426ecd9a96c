"""The seccomp filter of the untrusted program: what namespaces alone leave open, and kernel surface nobody needs.

A list of what is denied, not of what is allowed: the walls are the namespaces, the read-only view and the missing
capabilities, and a list of all that Python, NumPy and a shell may call would break with every new C library.
"""

from __future__ import annotations

from . import linux

_EPERM, _EAGAIN, _ENOSYS, _EAFNOSUPPORT = 1, 11, 38, 97
_AF_UNIX = 1

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
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    # memory that no limit of ours counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
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
    "prlimit64": (302, 261),
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
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; an argument's low word comes first


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
    for numbers in DENIED.values():
        program += _deny(numbers[column], _EPERM)
    call = {name: numbers[column] for name, numbers in CHECKED.items()}
    program += _deny(call["clone3"], _ENOSYS)  # its flags lie in memory; the C library falls back to clone
    if not may_fork:
        program += _deny(call["fork"], _EAGAIN) + _deny(call["vfork"], _EAGAIN)
    # The network namespace does not hold AF_VSOCK, which reaches the host of a virtual machine.
    program += _on(call["socket"], _step(_EQUAL, _AF_UNIX, 1, 0), _fail(_EAFNOSUPPORT))
    program += _on(call["prlimit64"], _step(_EQUAL, 0, 1, 0), _fail(_EPERM))  # its own limits only
    flags = [_step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _fail(_EPERM)]
    if not may_fork:
        flags += [_step(_ANY_BIT, linux.CLONE_THREAD, 1, 0), _fail(_EAGAIN)]
    program += _on(call["clone"], *flags)
    return b"".join([*program, _step(_RETURN, _ALLOW)])


def _deny(number: int, error: int) -> list[bytes]:
    return [] if number < 0 else [_step(_EQUAL, number, 0, 1), _fail(error)]


def _on(number: int, *body: bytes) -> list[bytes]:
    """For one call: load its first argument, run `body`, allow what the body has let through."""
    steps = [_step(_LOAD, _FIRST_ARGUMENT), *body, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, 0, len(steps)), *steps]


def _fail(error: int) -> bytes:
    return _step(_RETURN, _ERROR | error)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter: u16 code, u8 and u8 jumps, u32 value."""
    return code.to_bytes(2, "little") + bytes((if_true, if_false)) + value.to_bytes(4, "little")
