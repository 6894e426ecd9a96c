"""Writes a run's metrics, timeline, fates and evaluations: JSONL always, TensorBoard and W&B if asked for."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

import yaml

from rl.config.metrics import TrackerConfig, WandbConfig
from rl.errors import CheckpointError, ConfigError
from rl.metrics import files
from rl.metrics.environment import environment

logger = logging.getLogger(__name__)

ROW_FILES = (files.METRICS, files.TIMELINE, files.FATES_FILE)
Value = float | int | None | Mapping[Any, float | int | None]


class _Sink(Protocol):
    """A tracker besides JSONL; gets finite numbers under flat keys."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """Writes the files of `rl.metrics.files` into one run folder. Rows are flushed as they come; safe across threads.

    Opening a folder that already holds rows appends to them; a torn last line of an earlier run is cut off first. With
    `resume`, a `mark()` of that run, the rows written after it are dropped: the run makes those steps again.
    Nothing is written to TensorBoard or W&B that is not in the JSONL files as well.

    Example:
        with Tracker(run_dir, tensorboard=True) as tracker:
            tracker.log(1, {"loss": 0.5, "staleness/hist": {0: 3, 1: 1}})
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        tensorboard: bool = False,
        wandb: WandbConfig | None = None,
        resume: Mapping[str, int] | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._not_finite: Counter[str] = Counter()
        self._files: dict[str, TextIO] = {}
        self._sinks: list[_Sink] = []
        if resume is not None:
            self._rewind(resume)
        if tensorboard:
            purge = None if resume is None else resume["step"] + 1
            self._sinks.append(_TensorBoard(self.run_dir / files.TENSORBOARD, purge))
        if wandb is not None:
            self._sinks.append(_Wandb(self.run_dir, wandb))
        if not (self.run_dir / files.ENVIRONMENT).exists():
            write_json(self.run_dir / files.ENVIRONMENT, environment())

    @classmethod
    def from_config(cls, run_dir: Path, config: TrackerConfig, resume: Mapping[str, int] | None = None) -> Tracker:
        return cls(run_dir, tensorboard=config.tensorboard, wandb=config.wandb, resume=resume)

    def mark(self, step: int) -> dict[str, int]:
        """Where the files stand: their sizes in bytes by name, and `step`. For `resume`.

        What they hold by then is on the disk itself, so that a checkpoint never counts rows that a machine lost.
        """
        with self._lock:
            for stream in self._files.values():
                os.fsync(stream.fileno())
            paths = {name: self.run_dir / name for name in ROW_FILES}
            return {"step": step} | {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    def _rewind(self, mark: Mapping[str, int]) -> None:
        check_rows(self.run_dir, mark)
        for name in ROW_FILES:
            path = self.run_dir / name
            if path.exists():
                os.truncate(path, mark[name])

    def log(self, step: int, row: Mapping[str, Value]) -> None:
        """Write one row of metrics. Values are numbers or mappings of numbers; NaN and inf become null, with a warning.

        Raises:
            ValueError: `row` holds a `step` other than `step`.
        """
        if row.get("step", step) != step:
            raise ValueError(
                f"the row says step {row['step']!r} but was logged as step {step}; leave it out of the row"
            )
        clean = {key: self._clean(key, value) for key, value in row.items()}
        self._append(files.METRICS, {**clean, "step": step})
        self._send(step, flatten(clean))

    def timeline(self, actor: str, phase: str, start: float, end: float, step: int | None = None) -> None:
        """Record that `actor` was in `phase` from `start` to `end`, seconds since the run began."""
        if end < start:
            raise ValueError(f"span {actor}/{phase} ends at {end} before it starts at {start}; use one clock for both")
        row = {"actor": actor, "phase": phase, "start": round(start, 6), "end": round(end, 6), "step": step}
        self._append(files.TIMELINE, row)

    def fate(self, row: Mapping[str, Any]) -> None:
        """Record what became of one admission; raises DataError for an unknown fate or a missing key."""
        fate = files.parse_fate(row)
        self._append(files.FATES_FILE, {name: getattr(fate, name) for name in fate.__dataclass_fields__})

    def eval(self, result: Mapping[str, Any]) -> Path:
        """Write `evals/step_%06d.json` and log its scores; raises DataError if the layout is not the contract's."""
        checked = files.parse_eval(result)
        path = self.run_dir / files.EVALS / files.EVAL_NAME.format(step=checked.step)
        write_json(path, result)
        scores = {f"eval/mean_at_{checked.k}": checked.mean, f"eval/pass_at_{checked.k}": checked.passed}
        for name, task in checked.tasks.items():
            scores[f"eval/mean_at_{checked.k}/{name}"] = task.mean
            scores[f"eval/pass_at_{checked.k}/{name}"] = task.passed
        self._send(checked.step, flatten(scores))
        return path

    def close(self) -> None:
        """Flush and close everything; a second call does nothing."""
        for key, count in self._not_finite.items():
            logger.warning("metric %s was not finite in %d rows; they hold null", key, count)
        self._not_finite.clear()
        for stream in self._files.values():
            stream.close()
        sinks, self._sinks = self._sinks, []
        for sink in sinks:
            sink.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        line = json.dumps(row, allow_nan=False) + "\n"  # one write per row, so that rows of two threads never mix
        with self._lock:
            if name not in self._files:
                self._files[name] = _open_append(self.run_dir / name)
            self._files[name].write(line)
            self._files[name].flush()

    def _send(self, step: int, values: Mapping[str, float]) -> None:
        with self._lock:
            for sink in self._sinks:
                sink.scalars(step, values)

    def _clean(self, key: str, value: Value) -> Any:
        if isinstance(value, Mapping):
            return {str(name): self._clean(f"{key}/{name}", inner) for name, inner in value.items()}
        if value is None or isinstance(value, int):
            return value
        number = float(value)  # numpy and torch scalars included
        if math.isfinite(number):
            return number
        if key not in self._not_finite:
            logger.warning("metric %s is %s; written as null", key, number)
        self._not_finite[key] += 1
        return None


class _TensorBoard:
    def __init__(self, folder: Path, purge_step: int | None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise ConfigError(
                f"tensorboard=true needs the package `tensorboard` ({exc}); install it or set false"
            ) from exc
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run_dir: Path, config: WandbConfig) -> None:
        try:
            import wandb
        except ImportError as exc:
            raise ConfigError(f"a wandb section needs the package `wandb` ({exc}); install it or remove it") from exc
        resolved = run_dir / files.CONFIG
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            name=config.name or run_dir.name,
            group=config.group,
            tags=list(config.tags),
            mode=config.mode,
            dir=str(run_dir),
            config=yaml.safe_load(resolved.read_text()) if resolved.exists() else None,
        )
        # Evaluations and optimizer steps come in no fixed order, and W&B drops rows whose own step goes back.
        self._run.define_metric("trainer/step")
        self._run.define_metric("*", step_metric="trainer/step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "trainer/step": step})

    def close(self) -> None:
        self._run.finish()


def check_rows(run_dir: Path, mark: Mapping[str, int]) -> None:
    """Look whether the files of a run still hold what they held at a `mark()`.

    Raises:
        CheckpointError: one does not.
    """
    for name in ROW_FILES:
        path = run_dir / name
        size = path.stat().st_size if path.exists() else 0
        if size < mark[name]:
            raise CheckpointError(
                f"{path} has {size} bytes, fewer than the {mark[name]} it had at the checkpoint of step "
                f"{mark['step']}; put the file back, or start a new run in another `out`"
            )


def flatten(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row under flat keys: `{"a": {"0": 3}}` becomes `{"a/0": 3.0}`; nulls are left out."""
    flat: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{name}": number for name, number in flatten(value).items()})
        elif value is not None:
            flat[key] = float(value)
    return flat


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, indent=1), encoding="utf-8")
    partial.replace(path)


def _open_append(path: Path) -> TextIO:
    """Open for appending, with a torn last line cut off: a row appended to it would be lost with it."""
    if path.exists():
        content = path.read_bytes()
        keep = content.rfind(b"\n") + 1
        if keep != len(content):
            logger.warning("%s ends in a torn line of %d bytes; cut off", path, len(content) - keep)
            with path.open("r+b") as stream:
                stream.truncate(keep)
    return path.open("a", encoding="utf-8")
