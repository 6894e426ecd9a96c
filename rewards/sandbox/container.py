"""The command line of a container with the sandbox's launcher inside, for docker, podman and those like them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import uuid
from pathlib import Path

from rewards.sandbox.records import Limits

LAUNCHER_FOLDER = "/rewards-sandbox"
_NOBODY = 65534


def fresh_name() -> str:
    return f"rewards-{uuid.uuid4().hex[:16]}"


def command_line(runtime: str, image: str, name: str, limits: Limits, launcher: Path) -> list[str]:
    """Up to and with the image; what runs in it comes behind.

    The image is never pulled: a training run must not wait for a registry.
    """
    memory = limits.memory_mb * limits.processes + limits.scratch_mb + 64  # and the launcher
    scratch = f"rw,nosuid,nodev,size={limits.scratch_mb}m,mode=0700,uid={_NOBODY},gid={_NOBODY}"
    options = {
        "name": name,
        "pull": "never",
        "network": "none",
        "cap-drop": "ALL",
        "security-opt": "no-new-privileges",
        "user": f"{_NOBODY}:{_NOBODY}",
        "ipc": "none",
        "pids-limit": str(limits.processes + limits.threads + 8),
        "memory": f"{memory}m",
        "memory-swap": f"{memory}m",
        "tmpfs": f"/scratch:{scratch}",
        "workdir": "/scratch",
        "volume": f"{launcher}:{LAUNCHER_FOLDER}/inside:ro",
        "entrypoint": "",
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    return [runtime, "run", "--rm", "--interactive", "--read-only", *flags, image]


def remove(runtime: str, name: str) -> None:
    """Make sure that a container is gone, also where its client was killed."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run([runtime, "rm", "--force", name], timeout=30, check=False, env=dict(os.environ), **quiet)  # type: ignore[call-overload]
