"""What every command with a config does: load, validate, check, and run or (with `--dry-run`) print."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.errors import ConfigError, InterruptedRunError, RLError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def execute(
    words: str,
    path: Path,
    overrides: Sequence[str],
    *,
    dry_run: bool,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    """Run the command `words` with the config file at `path`; the runner gets `arguments` as keywords.

    Raises:
        ConfigError: the config is not valid, or the runner's module names problems that would stop the run.
    """
    from rl.commands import find, load, problems, resolve
    from rl.config.base import dump_config

    command = find(words)
    config = load(command, path, overrides)
    if dry_run:
        print(dump_config(config), end="", flush=True)
    found = problems(command, config)
    if found:
        raise ConfigError(f"{path} is valid, but `rl {words}` can't run with it:\n  " + "\n  ".join(found))
    if dry_run:
        print(f"{path}: nothing is missing for `rl {words}`{_in_the_way(config, arguments or {})}", file=sys.stderr)
        return
    try:
        result = resolve(command.runner)(config, **(arguments or {}))
    except KeyboardInterrupt as exc:
        raise InterruptedRunError(f"interrupted: rl {words} {path}") from exc
    except OSError as exc:
        if exc.errno not in _NO_ROOM or isinstance(exc, RLError):
            raise
        where = f" ({exc.filename})" if exc.filename else ""
        raise RLError(
            f"rl {words} could not write: {exc.strerror}{where}; make room, or set `out` to another disk, then start "
            "it again, a training run with --resume"
        ) from exc
    if not command.prints:
        _show(result)


def execute_pipeline(
    path: Path,
    overrides: Sequence[str],
    *,
    values: Mapping[str, Any],
    dry_run: bool,
    start: str | None,
    until: str | None,
) -> int:
    """Run the pipeline file at `path` with `values` set in it; returns the exit code."""
    from rl.commands import COMMANDS, load
    from rl.config.base import dump_config
    from rl.config.pipeline import PipelineConfig
    from rl.pipeline import check_engines, prepare, run

    config = load(COMMANDS["pipeline"], path, overrides, values=values)
    assert isinstance(config, PipelineConfig)
    if not dry_run:
        return run(config, path.parent, start=start, until=until)
    print(dump_config(config), end="")
    steps = prepare(config, path.parent)
    for step in steps:
        print(f"--- # step {step.number}: {step.title}")
        print(dump_config(step.config), end="")
    check_engines(steps)
    return 0


def _in_the_way(config: Any, arguments: Mapping[str, Any]) -> str:
    """What a dry run says besides of a training run whose folder an earlier one fills."""
    if arguments.get("resume") is not False or not (Path(config.out) / "metrics.jsonl").exists():
        return ""
    return f", but {config.out} holds a run already; start with --resume, or set another `out`"


def _show(result: Any) -> None:
    """Print the paths that a runner returned."""
    for item in result.values() if isinstance(result, Mapping) else [result]:
        if isinstance(item, Path):
            print(item)
