"""When the state of a run is written."""

from __future__ import annotations

from pydantic import Field

from rl.config.base import StrictModel


class CheckpointConfig(StrictModel):
    """When the state of a run is written, and how much of it is kept."""

    every: int | None = Field(None, ge=1)
    """Steps between checkpoints; one is always written at the end."""
    keep: int = Field(2, ge=1)
    """Newest checkpoints that are kept; older ones are removed."""
    stop_within_s: float = Field(120, gt=0)
    """Seconds from SIGTERM or Ctrl-C in which the learner's step under way, an evaluation or a profile may still end.
    What has not is broken off then, and the last completed version is checkpointed. A learner in the middle of a step
    has no such version, and the newest checkpoint on disk is the one to go on from: allow more than a step takes. The
    grace of what sends the signal (SLURM's `--signal`, `RAY_JOB_STOP_WAIT_TIME_S` of a Ray job, that of a Kubernetes
    pod) must be longer: by the time that writing a checkpoint takes, and half a minute for the actors to close."""
    background: bool = True
    """Go on training from a copy in host memory while the files are written."""
