"""What isolation this machine allows, found out by trying it."""

from __future__ import annotations

import os
import stat
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from rewards.sandbox.view import interpreter

_SETTINGS = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows userns to Python",
    ),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=10000"),
}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The outcome of a real run in a sandbox of namespaces."""

    namespaces: bool
    problem: str = ""
    """Which step the kernel has refused, where it has."""
    hints: tuple[str, ...] = ()
    """What to set so that it would not."""

    def explain(self) -> str:
        """For people: what is missing and what to set."""
        if self.namespaces:
            return "untrusted code is isolated by Linux namespaces and seccomp"
        wishes = [*self.hints, "name a container image with Python (REWARDS_SANDBOX_IMAGE=python:3.12-slim)"]
        return (
            f"untrusted code can't be isolated on this machine ({self.problem}), so it is not run. Do one of these: "
            + "; ".join(f"({number}) {wish}" for number, wish in enumerate(wishes, 1))
            + f"; ({len(wishes) + 1}) accept code that can read your files and use the network (REWARDS_SANDBOX=none)"
        )


_lock = threading.Lock()
_found: Capabilities | None = None


def capabilities(*, refresh: bool = False) -> Capabilities:
    """What this machine allows; tried once in a process (and in those forked from it), unless `refresh`."""
    global _found
    with _lock:
        if _found is None or refresh:
            _found = _probe()
        return _found


def _probe() -> Capabilities:
    from rewards.sandbox.box import Sandbox
    from rewards.sandbox.records import Limits, SandboxUnavailable

    if sys.platform != "linux":
        return Capabilities(False, f"it runs {sys.platform}, not Linux", ("run the reward workers on Linux",))
    try:
        report = Sandbox("namespaces", limits=Limits(memory_mb=256)).run_python("print(6 * 7)")
    except SandboxUnavailable as exc:
        return Capabilities(False, str(exc), _hints())
    first = report.commands[0]
    if first.stdout == b"42\n":
        return Capabilities(True)
    said = first.stderr.decode(errors="replace").strip()[-300:]
    return Capabilities(False, f"Python does not run inside: exit code {first.exit_code} {first.ended_by}, {said!r}")


def _closed_folder(path: str) -> Path | None:
    """The outermost folder above a file that others may not enter."""
    folders = reversed(Path(path).parents)
    return next((folder for folder in folders if not folder.stat().st_mode & stat.S_IXOTH), None)


def _hints() -> tuple[str, ...]:
    found = []
    for path, (bad, advice) in _SETTINGS.items():
        try:
            if Path(path).read_text().strip() == bad:
                found.append(advice)
        except OSError:
            continue  # this kernel has no such setting
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        found.append(
            "start the container with --cap-add SYS_ADMIN --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined"
        )
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        found.append(
            "give the pod's container securityContext: {capabilities: {add: [SYS_ADMIN]}, "
            "seccompProfile: {type: Unconfined}, appArmorProfile: {type: Unconfined}}"
        )
    closed = _closed_folder(interpreter()) if os.geteuid() == 0 else None
    if closed is not None:
        found.append(f"install Python where every user may read it: {closed} is open to root alone")
    return tuple(found) or ("allow unprivileged user namespaces (Linux 5.12 or later), or run as root",)
