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

    Parameters, momenta and the place in the schedule come from the folder; rates, betas and weight decay stay those of
    `optimizer` and `schedule`, so a run can be resumed with others.

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
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    set_state_dict(policy, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)
    _go_to(schedule, int(state["schedule"]["last_epoch"]))
    return int(state["version"])


def _go_to(schedule: LambdaLR, updates: int) -> None:
    """Put the schedule, and the rates it sets, where `updates` optimizer updates have led."""
    schedule.last_epoch, schedule._step_count = updates, updates + 1
    rates = [base * factor(updates) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def _schedule_state(schedule: LambdaLR) -> dict[str, Any]:
    return {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
