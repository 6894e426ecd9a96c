"""What a stage needs to go on: the learner's state, where the data stands, and how far the files are written."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from rl.checkpoint_folder import CHECKPOINTS, Checkpoint, begin, complete, how_to_go_on, latest
from rl.config.checkpoint import CheckpointConfig
from rl.errors import CheckpointError, first_lines
from rl.learner.checkpoint import causes
from rl.learner.strategy import Strategy

STATE_KEYS = {"step", "data", "rows", "tokens", "skipped", "seconds"}


def find(run: Path) -> Checkpoint:
    """The newest checkpoint; see `rl.checkpoint_folder.latest` for what is raised."""
    return latest(run, STATE_KEYS)


class Checkpoints:
    """Writes checkpoints of one rank. `save` and `wait` are collective.

    Args:
        step: that of the checkpoint from which the run goes on.
    """

    def __init__(self, run: Path, config: CheckpointConfig, strategy: Strategy, rank: int, step: int) -> None:
        self.run, self.config, self.strategy, self.rank = run, config, strategy, rank
        self._saved = step
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def due(self, step: int) -> bool:
        return self.config.every is not None and step % self.config.every == 0

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Copy the learner's state, and write it beside training if so configured."""
        self.wait()
        if step == self._saved:
            return
        final = self.run / CHECKPOINTS / f"step_{step:06d}"
        partial = final.with_suffix(".partial")
        if self.rank == 0:
            begin(final)
        dist.barrier()
        files = self.strategy.save(partial / "learner", step, self.config.background)
        self._writing = self._thread.submit(self._finish, files, partial, final, dict(state))
        self._saved = step

    def wait(self) -> None:
        """Until the last checkpoint is complete."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                writing.result()
            except (Exception, CheckpointException) as exc:  # torch derives the latter from BaseException
                inner = causes(exc)[0]
                raise CheckpointError(
                    f"rank {self.rank} could not write its part of a checkpoint under {self.run} "
                    f"({type(inner).__name__}: {first_lines(inner)}); see that the disk has room; "
                    f"{how_to_go_on(self.run)}"
                ) from exc
            dist.barrier()

    def _finish(self, files: Future[Any], partial: Path, final: Path, state: Mapping[str, Any]) -> None:
        files.result()  # on rank 0, once all ranks have written theirs
        if self.rank == 0:
            complete(partial, final, state, self.config.keep)
