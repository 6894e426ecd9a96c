"""A control group (version 2) around one run, where an administrator has delegated a folder for it."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from rewards.sandbox.records import Limits, SandboxUnavailable

_LAUNCHER_MB = 64
_NEEDED = ("cgroup.procs", "memory.max", "pids.max")


@contextlib.contextmanager
def child(parent: str | None, limits: Limits) -> Iterator[Path | None]:
    """A group below `parent` with the limits; whoever writes to its `cgroup.procs` is in. Removed afterwards.

    Raises:
        SandboxUnavailable: the folder is not a group that was delegated with its controllers.
    """
    if parent is None:
        yield None
        return
    group = Path(parent) / f"rewards-{uuid.uuid4().hex[:16]}"
    values = {
        "memory.max": (limits.memory_mb + limits.scratch_mb + _LAUNCHER_MB) * 2**20,
        "memory.swap.max": 0,
        "pids.max": limits.processes + limits.threads + 8,
    }
    try:
        group.mkdir()
        missing = [name for name in _NEEDED if not (group / name).exists()]
        if missing:  # an ordinary folder, or one without the controllers: a limit written there would bound nothing
            raise FileNotFoundError(f"the kernel made no {' and no '.join(missing)} in {group}")
        for name, value in values.items():
            if name != "memory.swap.max" or (group / name).exists():  # not there on a kernel without swap
                (group / name).write_text(str(value))
    except OSError as exc:
        with contextlib.suppress(OSError):
            group.rmdir()
        raise SandboxUnavailable(
            f"the control group {parent} can't be used: {exc}; it must be a delegated cgroup v2 folder that is "
            "writable, holds no process, and lists memory and pids in cgroup.subtree_control "
            "(systemd-run --user --scope -p Delegate=yes makes one); set another one, or none"
        ) from exc
    try:
        yield group
    finally:
        _remove(group)


def ran_out_of_memory(group: Path) -> bool:
    """Whether the kernel has killed a process of the group for memory."""
    try:
        counts = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
    except (OSError, ValueError):
        return False
    return int(counts.get("oom_kill", 0)) > 0


def _remove(group: Path) -> None:
    """The launcher has waited for everybody inside, but the kernel takes a moment to notice."""
    for _ in range(50):
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return
