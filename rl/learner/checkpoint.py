"""Learner state on disk with torch's distributed checkpoint: trained parameters, optimiser, schedule, random state.

Frozen parameters are left out: they are those of the model folder that the run names. The files hold no trace of how
many ranks wrote them but for the random states, so any number of ranks can read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim.lr_scheduler import LambdaLR

from rl.errors import CheckpointError
from rl.learner import randomness
from rl.models.policy import Policy

_TRAINED = StateDictOptions(ignore_frozen_params=True)


def save(
    folder: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    version: int,
    background: dist.ProcessGroup | None = None,
) -> Future[Any]:
    """Copy all ranks' shards to host memory, then write them. Collective.

    Args:
        background: a group of all ranks over gloo that nothing else uses. With it the call returns when the copy is
            made, and a thread writes it; without it the call returns when the files are complete.

    Returns:
        What is done, or raises CheckpointError, once the files are complete.
    """
    state = _state(policy, optimizer, schedule, version)
    state["random"] = {f"rank_{dist.get_rank()}": randomness.capture()}
    if background is not None:
        writing = dcp.async_save(state, checkpoint_id=str(folder), process_group=background)
        assert isinstance(writing, Future)
        return writing
    done: Future[Any] = Future()
    done.set_result(dcp.save(state, checkpoint_id=str(folder)))
    return done


def load(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> int:
    """Restore in place, resharding if the number of ranks changed; returns the version. Collective.

    Parameters, momenta and the place in the schedule come from the folder; rates, betas and weight decay stay those of
    `optimizer` and `schedule`, so a run can be resumed with others. A rank that the writer had, too, takes up its
    random state; further ranks keep theirs.

    Raises:
        CheckpointError: the folder is missing, torn, of another model, or of other trained parameters.
    """
    if not (folder / ".metadata").is_file():
        raise CheckpointError(f"{folder} holds no complete learner checkpoint (.metadata is missing)")
    state = _state(policy, optimizer, schedule, 0)
    saved = dcp.FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    _check_parameters(folder, saved, state["model"])
    mine = f"rank_{dist.get_rank()}"
    if any(key.startswith(f"random.{mine}.") for key in saved):
        state["random"] = {mine: randomness.capture()}
    try:
        dcp.load(state, checkpoint_id=str(folder))
    except (Exception, CheckpointException) as exc:  # torch derives the latter from BaseException
        raise CheckpointError(f"{folder} does not fit this run's model or optimiser: {exc}") from exc
    settings = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    set_state_dict(
        policy,
        optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
        options=StateDictOptions(ignore_frozen_params=True, strict=False),
    )
    for group, kept in zip(optimizer.param_groups, settings, strict=True):
        group.update(kept)
    go_to(schedule, int(state["schedule"]["last_epoch"]))
    if "random" in state:
        randomness.restore(state["random"][mine])
    return int(state["version"])


def go_to(schedule: LambdaLR, updates: int) -> None:
    """Put the schedule, and the rates it sets, where `updates` optimizer updates have led."""
    schedule.last_epoch, schedule._step_count = updates, updates + 1
    rates = [base * factor(updates) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def _state(policy: Policy, optimizer: torch.optim.Optimizer, schedule: LambdaLR, version: int) -> dict[str, Any]:
    model_state, optimizer_state = get_state_dict(policy, optimizer, options=_TRAINED)
    # Second names of tied parameters, and those whose first name is a frozen one.
    known = {name for name, _ in policy.named_parameters(remove_duplicate=False)}
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    model_state = {name: tensor for name, tensor in model_state.items() if name in trained or name not in known}
    place = {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
    return {"model": model_state, "optimizer": optimizer_state, "schedule": place, "version": version}


def _check_parameters(folder: Path, saved: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """What was trained must be what is trained: a missing part would start again, one too many would be lost."""
    there = {key.removeprefix("model.") for key in saved if key.startswith("model.")}
    problems = []
    for kind, names in (("is without", sorted(model.keys() - there)), ("has besides", sorted(there - model.keys()))):
        if names:
            problems.append(f"{kind} {len(names)} of them ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    if problems:
        raise CheckpointError(
            f"{folder} does not fit this run's model: of the parameters that it trains the checkpoint "
            f"{' and '.join(problems)}; resume with the model, trainable and learner.lora of the run that wrote it"
        )
