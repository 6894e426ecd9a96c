"""The checkpoints of a run on disk: whole or not at all, the newest whole one found again, old ones removed.

`checkpoints/step_000040/` holds `learner/` and `driver.json`, whose presence says that the rest is complete. It is
called `step_000040.partial` while it is written, and `step_000040.torn` once a run went on from an older one because it
could not be read.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

from rl.errors import CheckpointError, TornCheckpointError

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
STATE = "driver.json"
_LEARNER = "learner"
_INDEX = ".metadata"
"""Of the learner's files, written last."""
_PARTIAL, _TORN = ".partial", ".torn"


class Checkpoint(NamedTuple):
    """A complete checkpoint."""

    folder: Path
    state: dict[str, Any]
    """The driver's, beside which `learner/` holds the learner's."""


def begin(final: Path) -> Path:
    """An empty folder to write into in place of `final`, until `complete` gives it that name."""
    partial = final.with_suffix(_PARTIAL)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    return partial


def complete(partial: Path, final: Path, state: Mapping[str, Any], keep: int) -> None:
    """Give a folder in which the rest is written its name, and remove all but the `keep` newest checkpoints.

    The files are on the disk itself before they get the name, and the name is before any older checkpoint goes: a
    machine that dies at any moment leaves a whole one. Blocks for as long as that takes.

    Raises:
        CheckpointError: the learner's part is not there.
    """
    if not (partial / _LEARNER / _INDEX).is_file():
        raise CheckpointError(
            f"the learner has written its part of {final.name}, and none of it is in {partial} here: its nodes have "
            "another folder of that name; set `out` to one that the driver and all learner ranks share"
        )
    (partial / STATE).write_text(json.dumps(state))
    for here, _, names in os.walk(partial, topdown=False):
        for name in names:
            _flush(Path(here) / name)
        _flush(Path(here))
    partial.rename(final)
    run = final.parent.parent
    for holder in (final.parent, run):
        _flush(holder)
    left = final.parent.glob(f"step_*{_PARTIAL}")  # by runs that were killed
    for old in (*complete_checkpoints(run)[:-keep], *left, final.with_suffix(_TORN)):
        _remove(old)


def _remove(folder: Path) -> None:
    """What can't be removed, say because somebody on a network file system reads it, must not end a run."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as exc:
        logger.warning("%s is not needed any more and could not be removed: %s", folder, exc)


def _flush(path: Path) -> None:
    """Wait until a file, or the list of what a folder holds, has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as exc:
        # Some network file systems can't do it for folders, and keep their names in order themselves.
        if not path.is_dir() or exc.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def complete_checkpoints(run: Path) -> list[Path]:
    """Checkpoint folders of a run, oldest first; half-written ones are not among them."""
    return [path for path in _folders(run) if (path / STATE).is_file()]


def latest(run: Path, needed: Set[str]) -> Checkpoint:
    """The newest checkpoint whose driver state can be read; what is newer is warned of.

    Args:
        needed: keys that the state must have.
    Raises:
        CheckpointError: there is no checkpoint.
        TornCheckpointError: there is none that can be read; says what was found of each.
    """
    folders = _folders(run)
    if not folders:
        raise CheckpointError(f"{run} has no complete checkpoint to resume from; start without --resume")
    return _newest(folders, needed, [])


def checkpoint_before(damaged: Checkpoint, cause: TornCheckpointError, needed: Set[str]) -> Checkpoint:
    """As `latest`, of the checkpoints older than one that turned out to be torn; `cause` says how it is."""
    folder = damaged.folder
    older = [path for path in _folders(folder.parent.parent) if path.name < folder.name]
    return _newest(older, needed, [str(cause)])


def set_aside_newer(folder: Path) -> None:
    """Rename what is newer than the checkpoint that a run goes on from: the run makes those steps and names again."""
    for path in _folders(folder.parent.parent):
        if path.name > folder.name:
            shutil.rmtree(path.with_suffix(_TORN), ignore_errors=True)
            path.rename(path.with_suffix(_TORN))


def _folders(run: Path) -> list[Path]:
    return sorted(path for path in (run / CHECKPOINTS).glob("step_*") if not path.suffix)


def _newest(folders: Sequence[Path], needed: Iterable[str], torn: list[str]) -> Checkpoint:
    """The last folder with a whole state; `torn` says what is wrong with those that were looked at before."""
    for folder in reversed(folders):
        try:
            state = _read_state(folder / STATE, needed)
        except TornCheckpointError as exc:
            torn.append(str(exc))
            continue
        for finding in torn:
            logger.warning("%s; going on from the checkpoint before it, %s", finding, folder)
        return Checkpoint(folder, state)
    raise TornCheckpointError(
        f"{'; '.join(torn)}; there is no older checkpoint that is whole; bring one back from a copy, or start anew "
        "with another `out`"
    )


def _read_state(path: Path, needed: Iterable[str]) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise TornCheckpointError(f"{path} is torn: {exc}") from exc
    missing = sorted(set(needed) - state.keys()) if isinstance(state, dict) else sorted(needed)
    if missing:
        raise TornCheckpointError(f"{path} is torn: it lacks {', '.join(missing)}")
    return state


def how_to_go_on(run: Path) -> str:
    """What to do about a run that ended before its last step through no fault of its own."""
    found = complete_checkpoints(run)
    if found:
        return f"go on with --resume (last checkpoint: step {int(found[-1].name.rpartition('_')[2])})"
    return f"there is no checkpoint yet: remove {run} and start again"
