"""Into new namespaces, onto a file system of chosen read-only paths and one scratch folder, and down to no privileges.

Two ways in, with the same result: root makes the namespaces and builds the view as root, then becomes a user without
rights; anybody else does it all as the owner of a user namespace. Either way the program ends up in a user namespace
of its own, so that the limit on processes counts this sandbox and no other.
"""

from __future__ import annotations

import os

from . import linux

NOBODY = 65534
SCRATCH = "/scratch"
HOST = "sandbox"
DEVICES = ("null", "zero", "full", "random", "urandom")
MAX_SCRATCH_FILES = 4096

_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


def enter() -> bool:
    """Leave the host's namespaces; the next fork is process 1 of the new one. True where it was done as root.

    Raises:
        OSError: the kernel or its settings don't allow it.
    """
    if os.geteuid() == 0:
        try:
            linux.unshare(_NAMESPACES)
            linux.set_host_names(HOST)
            return True
        except PermissionError:  # root of a container without CAP_SYS_ADMIN: try as anybody else
            become_nobody()
    _enter_user_namespace(_NAMESPACES, None)
    linux.set_host_names(HOST)
    return False


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    linux.set_dumpable(True)  # else the files in our own /proc entry belong to root now


def build_view(paths: list[str], links: dict[str, str], scratch_bytes: int, as_root: bool) -> None:
    """Make a root of `paths` (real paths, read-only), `links` and the scratch folder; nothing of the host is left.

    As root it also becomes nobody, while the host's /proc is still there to write the user map.
    """
    owner = NOBODY if as_root else os.getuid()
    group = NOBODY if as_root else os.getgid()
    base = "/tmp"  # any folder that exists; covered for a moment, in this namespace only
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("sandbox", base, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,nr_inodes=4k,mode=755")
    os.mkdir(base + "/host")
    linux.pivot_root(base, base + "/host")
    os.chdir("/")
    for path in paths:
        _show(path, devices=False)
    for name in DEVICES:
        _show(f"/dev/{name}", devices=True)
    for link, target in links.items():
        os.makedirs(os.path.dirname(link), exist_ok=True)
        os.symlink(target, link)
    os.mkdir(SCRATCH)
    options = f"size={scratch_bytes},nr_inodes={MAX_SCRATCH_FILES},mode=700,uid={owner},gid={group}"
    linux.mount("scratch", SCRATCH, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    if not os.path.lexists("/tmp"):
        os.symlink(SCRATCH, "/tmp")
    proc = os.open("/host/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    linux.detach("/host")
    os.rmdir("/host")
    linux.make_read_only("/", recursive=False)
    if as_root:
        become_nobody()
        _enter_user_namespace(0, proc)
    os.close(proc)


def _show(path: str, *, devices: bool) -> None:
    source = "/host" + path
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    elif not os.path.lexists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.mount(source, path, "", linux.MS_BIND | linux.MS_REC)
    linux.make_read_only(path, recursive=True, devices=devices)


def _enter_user_namespace(more: int, proc: int | None) -> None:
    """A user namespace that knows one user, who is also the one outside; `proc`: an open /proc, if it has no path."""
    entry = "/proc/self" if proc is None else "self"
    user, group = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | more)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        descriptor = os.open(f"{entry}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        os.write(descriptor, text.encode())
        os.close(descriptor)
