"""The record of one step: what each learner rank trained on, from which state, and what came of it.

    records/step_000007/
        learner/            the learner's state before the step, as in a checkpoint; none before the first step, which
                            starts from the model's folder
        random_0.npz        random state of rank 0 at that moment, and so on
        rank_0.json         its groups: admissions, samples, versions, advantages; rank_0.npz: ids, logprobs, pixels
        config.yaml         the run's settings at that step, which a resumption may change later
        step.json           seeds, workers, the step's metrics and the digest of the weights after it

Plain JSON and arrays without pickles: a record can be read by anybody, and reading one runs no code of its author.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rl.batch.plan import UpdateShare
from rl.errors import DataError
from rl.records import Group, Rollout, VersionSpan

FOLDER = "records"
STEP = "step.json"
CLOCKS = ("time/", "sync/")
"""Metrics that begin so are of clocks, and no part of what a step computes."""


@dataclass(frozen=True, slots=True)
class RecordedGroup:
    """A group with its advantages, as a rank trained on it."""

    group: Group
    advantages: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class RecordedUpdate:
    """A rank's part of one optimizer update; `sequences` as in `UpdateShare`."""

    groups: tuple[RecordedGroup, ...]
    sequences: int


def fetched(shares: Sequence[UpdateShare], groups: Mapping[int, Group]) -> list[RecordedUpdate]:
    """Shares with the groups, by uid, in place of references."""
    return [
        RecordedUpdate(
            tuple(RecordedGroup(groups[part.uid], part.advantages) for part in share.groups), share.sequences
        )
        for share in shares
    ]


def step_folder(run: Path, step: int) -> Path:
    return run / FOLDER / f"step_{step:06d}"


def begin(run: Path, step: int) -> Path:
    """An empty folder to record a step into; it gets the step's name from `finish`."""
    partial = step_folder(run, step).with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(partial: Path, outcome: Mapping[str, Any]) -> None:
    """Write `step.json` and give the folder its name, in place of an older record of the step."""
    (partial / STEP).write_text(json.dumps(outcome, indent=1), encoding="utf-8")
    final = partial.with_suffix("")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def read_outcome(run: Path, step: int) -> dict[str, Any]:
    """What `finish` wrote.

    Raises:
        DataError: there is no record of the step; names those that there are.
    """
    path = step_folder(run, step) / STEP
    try:
        outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        steps = sorted(int(folder.name[5:]) for folder in (run / FOLDER).glob("step_*") if folder.name[5:].isdecimal())
        known = f"there are those of {', '.join(map(str, steps))}" if steps else "set record.every or record.steps"
        raise DataError(f"{run} has no record of step {step}; {known}") from exc
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} can't be read: {exc}; it was not written by a run, or is cut short") from exc
    if not isinstance(outcome, dict) or not isinstance(outcome.get("metrics"), dict) or "weights" not in outcome:
        raise DataError(f"{path} has no metrics or no digest of weights; it was not written by a run, or was changed")
    return outcome


def write_rank(folder: Path, rank: int, updates: Sequence[RecordedUpdate]) -> None:
    """Write what a rank trains on in a step."""
    arrays: dict[str, np.ndarray] = {}
    said = []
    for u, update in enumerate(updates):
        groups = []
        for g, part in enumerate(update.groups):
            groups.append(_describe(part))
            arrays |= {f"{u}/{g}/{name}": array for name, array in _arrays(part.group).items()}
        said.append({"sequences": update.sequences, "groups": groups})
    (folder / f"rank_{rank}.json").write_text(json.dumps({"updates": said}, indent=1), encoding="utf-8")
    np.savez_compressed(folder / f"rank_{rank}.npz", **arrays)  # type: ignore[arg-type]


def read_rank(folder: Path, rank: int) -> list[RecordedUpdate]:
    """What `write_rank` wrote.

    Raises:
        DataError: a file is missing or torn.
    """
    try:
        said = json.loads((folder / f"rank_{rank}.json").read_text(encoding="utf-8"))["updates"]
        with np.load(folder / f"rank_{rank}.npz", allow_pickle=False) as arrays:
            return [
                RecordedUpdate(
                    tuple(_group(row, f"{u}/{g}", arrays) for g, row in enumerate(update["groups"])),
                    update["sequences"],
                )
                for u, update in enumerate(said)
            ]
    except Exception as exc:  # zip files, arrays and JSON each fail in ways of their own
        raise DataError(f"{folder} holds no whole record of rank {rank}: {type(exc).__name__}: {exc}") from exc


def _describe(part: RecordedGroup) -> dict[str, Any]:
    group = part.group
    return {
        "uid": group.uid,
        "sample_id": group.sample_id,
        "image_digests": list(group.image_digests),
        "advantages": list(part.advantages),
        "rollouts": [
            {
                "versions": [asdict(span) for span in rollout.versions],
                "finish_reason": rollout.finish_reason,
                "text": rollout.text,
            }
            for rollout in group.rollouts
        ],
    }


def _arrays(group: Group) -> dict[str, np.ndarray]:
    arrays = {"prompt": group.prompt_ids}
    arrays |= {f"image/{i}": image for i, image in enumerate(group.images)}
    for i, rollout in enumerate(group.rollouts):
        arrays |= {f"tokens/{i}": rollout.token_ids, f"logprobs/{i}": rollout.logprobs}
    return arrays


def _group(row: Mapping[str, Any], prefix: str, arrays: Mapping[str, np.ndarray]) -> RecordedGroup:
    rollouts = tuple(
        Rollout(
            token_ids=arrays[f"{prefix}/tokens/{i}"],
            logprobs=arrays[f"{prefix}/logprobs/{i}"],
            versions=tuple(VersionSpan(**span) for span in said["versions"]),
            finish_reason=said["finish_reason"],
            text=said["text"],
        )
        for i, said in enumerate(row["rollouts"])
    )
    digests = tuple(row["image_digests"])
    group = Group(
        uid=row["uid"],
        sample_id=row["sample_id"],
        prompt_ids=arrays[f"{prefix}/prompt"],
        images=tuple(arrays[f"{prefix}/image/{i}"] for i in range(len(digests))),
        image_digests=digests,
        rollouts=rollouts,
    )
    return RecordedGroup(group, tuple(row["advantages"]))
