"""Learner state on disk with torch's distributed checkpoint: parameters, optimiser, schedule, version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.optim.lr_scheduler import LambdaLR

from rl.errors import CheckpointError
from rl.models.policy import Policy


def save(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, schedule: LambdaLR, version: int) -> None:
    """Write all ranks' shards. Collective."""
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    state = {
        "model": model_state,
        "optimizer": optimizer_state,
        "schedule": _schedule_state(schedule),
        "version": version,
    }
    dcp.save(state, checkpoint_id=str(folder))


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> int:
    """Restore in place, resharding if the number of ranks changed; returns the version. Collective.

    Raises:
        CheckpointError: the folder is missing, torn or of another model.
    """
    if not (folder / ".metadata").is_file():
        raise CheckpointError(f"{folder} holds no complete learner checkpoint (.metadata is missing)")
    model_state, optimizer_state = get_state_dict(policy, optimizer)
    state: dict[str, Any] = {
        "model": model_state,
        "optimizer": optimizer_state,
        "schedule": _schedule_state(schedule),
        "version": 0,
    }
    try:
        dcp.load(state, checkpoint_id=str(folder))
    except (Exception, CheckpointException) as exc:  # torch derives the latter from BaseException
        raise CheckpointError(f"{folder} does not fit this run's model or optimiser: {exc}") from exc
    set_state_dict(policy, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["version"])


def _schedule_state(schedule: LambdaLR) -> dict[str, Any]:
    return {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
