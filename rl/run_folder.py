"""The folder of a run before anything is in it or changed: whose it is, and whether it can be written."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rl.config.base import StrictModel
from rl.errors import ConfigError
from rl.metrics import files

logger = logging.getLogger(__name__)

LOCK = ".lock"
_RECORD = (
    *(files.CONFIG, files.MIXTURE, files.ENVIRONMENT, files.METRICS, files.TIMELINE, files.FATES_FILE, files.EVALS),
    *(files.SUMMARY, files.REPORT, files.TENSORBOARD, "records", "wandb"),
)
"""What a run writes, but for its checkpoints."""


def folder_problems(out: str) -> list[str]:
    """Why a run folder can't be made or written, for --dry-run; nothing is made."""
    path = Path(out)
    if not out.strip():
        return ["out is empty, which would be the folder that the command was started in; set a folder"]
    if path.parts[:1] and path.parts[0].startswith("~"):
        return [f"out {out} begins with ~, which only a shell expands; write the folder out"]
    there = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        return [f"out {out} can't be made: {there} is not a folder"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"out {out} can't be written: no permission in {there}; set `out` to a folder of yours"]
    return []


def compare_settings(saved: Mapping[str, Any], config: StrictModel) -> None:
    """Log what a resumed run does otherwise than its folder's config said.

    Raises:
        ConfigError: the model is another. What is frozen, or what adapters are added to, is read from it and is in no
            checkpoint.
    """
    before, now = _flat(saved), _flat(config.model_dump(mode="json"))
    changes = [
        f"{key}: {before.get(key, 'not set')} -> {now.get(key, 'not set')}"
        for key in dict.fromkeys((*before, *now))
        if key != "out" and (key in before, before.get(key)) != (key in now, now.get(key))
    ]
    if changes:
        logger.warning("resumed with other settings than before:\n  %s", "\n  ".join(changes))
    old, new = str(before.get("model")), str(now.get("model"))
    if Path(old).absolute() != Path(new).absolute():
        raise ConfigError(
            f"the run was started from model {old} and can't go on with {new}: frozen weights and those under "
            f"adapters come from that folder; resume with model={old}, or start a new run in another `out`"
        )


def check_steps(out: str, steps: int, made: int) -> None:
    """Raises ConfigError: the run to be resumed has made more steps than it is now asked for."""
    if made > steps:
        raise ConfigError(
            f"the run in {out} has made {made} steps, and steps is {steps}: it can't be taken back to there; set steps "
            f"to {made} or more, or start a new run in another `out`"
        )


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def holds_rows(out: Path) -> bool:
    """Whether a run has written of what it did."""
    return any((out / name).exists() for name in (files.METRICS, files.TIMELINE, files.FATES_FILE, files.EVALS))


def set_aside(out: Path) -> Path | None:
    """Move the record of a run into a folder of its own inside `out`, so that another can start there.

    Returns:
        That folder, or None where the run had done nothing yet. What others have put into `out` stays.
    """
    if not holds_rows(out):
        return None
    numbers = itertools.count(1)
    aside = next(path for number in numbers if not (path := out / f"attempt_{number}").exists())
    aside.mkdir()
    for path in [path for name in _RECORD if (path := out / name).exists()]:
        path.rename(aside / path.name)
    return aside


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the run folder, which is made if need be, for this process alone; a killed holder leaves it free.

    Raises:
        ConfigError: another process holds it (named, with its machine), or it can't be written.
    """
    for problem in folder_problems(str(out)):
        raise ConfigError(problem)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / LOCK).open("a+")
    except OSError as exc:
        raise ConfigError(f"out {out} can't be written: {exc.strerror or exc}; set `out` to a folder of yours") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise ConfigError(
                f"another process ({holder}) drives the run in {out}, and two would rewind each other's files; "
                "wait for it to end or stop it, or set another `out`"
            ) from exc
        except OSError as exc:
            logger.warning("%s can't be locked (%s); see to it that no other process drives this run", out, exc)
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        yield
