"""Learner state on disk with torch's distributed checkpoint: trained parameters, optimiser, schedule, random state.

Frozen parameters are left out: they are those of the model folder that the run names. The files hold no trace of how
many ranks wrote them but for the random states, so any number of ranks can read them.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata
from torch.optim.lr_scheduler import LambdaLR

from rl.errors import CheckpointError, TornCheckpointError, first_lines
from rl.learner import randomness

_WRITERS: dict[dist.ProcessGroup, dist.ProcessGroup] = {}
"""For each learner's process group a second one of the same ranks, for the thread that writes."""


def parts_of(
    model: Mapping[str, Any], optimizer: Mapping[str, Any], schedule: LambdaLR, version: int
) -> dict[str, Any]:
    """The parts of a checkpoint. Names are those of the policy's parameters; tensors are whole, or shards as DTensors.

    Args:
        optimizer: `state` by name, and `param_groups` with names in `params`, as torch's `get_state_dict` makes them.
    """
    place = {key: value for key, value in schedule.state_dict().items() if key != "lr_lambdas"} | {"lr_lambdas": [None]}
    return {"model": model, "optimizer": optimizer, "schedule": place, "version": version}


def write(folder: Path, parts: dict[str, Any], background: bool) -> Future[Any]:
    """Copy this rank's parts to host memory, with its random state, then write them. Collective.

    Args:
        background: return when the copy is made, and let a thread write it.

    Returns:
        What is done, or raises, once the files are complete.
    """
    state = parts | {"random": {f"rank_{dist.get_rank()}": randomness.capture()}}
    if background:
        writing = dcp.async_save(state, checkpoint_id=str(folder), process_group=_writers())
        assert isinstance(writing, Future)
        return writing
    done: Future[Any] = Future()
    done.set_result(dcp.save(state, checkpoint_id=str(folder)))
    return done


def _writers() -> dist.ProcessGroup:
    learner = dist.group.WORLD
    assert learner is not None
    if learner not in _WRITERS:
        _WRITERS.clear()
        _WRITERS[learner] = dist.new_group(backend="gloo")
    return _WRITERS[learner]


def read(folder: Path, parts: dict[str, Any]) -> dict[str, Any]:
    """Read into the tensors of `parts`, whatever number of ranks wrote, and return them with the rest. Collective.

    A rank that the writer had, too, takes up its random state; further ranks keep theirs.

    Raises:
        TornCheckpointError: a file is missing, cut short or garbled; it is named as far as that is known.
        CheckpointError: the folder is of another model, or of other trained parameters.
    """
    if not (folder / ".metadata").is_file():
        raise TornCheckpointError(f"{folder} holds no complete learner checkpoint (.metadata is missing)")
    saved = _index(folder).state_dict_metadata
    _check_parameters(folder, saved, parts["model"])
    mine = f"rank_{dist.get_rank()}"
    if any(key.startswith(f"random.{mine}.") for key in saved):
        parts = parts | {"random": {mine: randomness.capture()}}
    try:
        dcp.load(parts, checkpoint_id=str(folder))
    except (Exception, CheckpointException) as exc:  # torch derives the latter from BaseException
        if (torn := _tear(exc)) is not None:
            raise TornCheckpointError(
                f"a file of {folder} is torn: {type(torn).__name__}: {first_lines(torn)}"
            ) from exc
        raise CheckpointError(
            f"{folder} does not fit this run's model or optimiser: {first_lines(causes(exc)[0])}; resume with the "
            "model and learner.optimizer of the run that wrote it"
        ) from exc
    if "random" in parts:
        randomness.restore(parts["random"][mine])
    return parts


def causes(exc: BaseException) -> list[BaseException]:
    """What went wrong on each rank, which torch wraps in one exception; at least one."""
    inner = [each for each, _ in exc.failures.values()] if isinstance(exc, CheckpointException) else []
    return inner or [exc]


def _index(folder: Path) -> Metadata:
    """What the checkpoint says of itself, once every file that it names is as long as it should be."""
    path = folder / ".metadata"
    try:
        index = dcp.FileSystemReader(str(folder)).read_metadata()
        ends: dict[str, int] = {}
        for place in index.storage_data.values():
            ends[place.relative_path] = max(ends.get(place.relative_path, 0), place.offset + place.length)
    except Exception as exc:  # a garbled pickle raises nearly anything
        raise TornCheckpointError(f"{path} is torn: {type(exc).__name__}: {first_lines(exc)}") from exc
    for name, end in sorted(ends.items()):
        file = folder / name
        size = file.stat().st_size if file.exists() else 0
        if size < end:
            raise TornCheckpointError(f"{file} is torn: it has {size} bytes of {end}")
    return index


def _tear(exc: BaseException) -> BaseException | None:
    """The error within `exc` that only garbled bytes lead to, if there is one."""
    marks = (EOFError, zipfile.BadZipFile, pickle.UnpicklingError)
    return next((each for each in causes(exc) if isinstance(each, marks) or "PytorchStreamReader" in str(each)), None)


def go_to(schedule: LambdaLR, updates: int) -> None:
    """Put the schedule, and the rates it sets, where `updates` optimizer updates have led."""
    schedule.last_epoch, schedule._step_count = updates, updates + 1
    rates = [base * factor(updates) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


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
