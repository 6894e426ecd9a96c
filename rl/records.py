"""The typed, frozen records that travel between the parts of a run.

Control-plane records (`GroupMeta`) are small and go through the driver. Data-plane records (`Rollout`, `Group`) hold
token ids, logprobs and pixels; they travel by Ray object reference from a rollout worker to the learner ranks and
never through the driver.

Axes in names: `_G` groups, `_S` sequences, `_T` tokens, `_V` vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

RIGHT = 0.5
"""A completion is right when its outcome reaches this: all of 0/1 verifiers, and boxes at the usual IoU of 0.5."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of an RL dataset in the RL-172K layout.

    Example:
        Sample(id="counting_17", problem="<image>How many discs are there?", answers=("4",), images=(png_bytes,),
               problem_type="counting", answer_type="number", source="counting")
    """

    id: str
    problem: str
    """Text of the question; holds one `<image>` per image, in order."""
    answers: tuple[str, ...]
    """Accepted answers; any one of them is right."""
    images: tuple[bytes, ...]
    """Encoded image files (PNG, JPEG, ...), undecoded."""
    problem_type: str
    answer_type: str
    """The name of the verifier that scores an answer, a key of `rewards.registry`."""
    source: str
    """Where the row comes from; evaluation and curation report per source."""
    prompt_type: str = "think"
    """`normal` asks for the answer only; anything else asks for reasoning first."""
    format_guidance: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Columns carried through untouched: solution, data_source, options, ability, avg_reward, tokens."""


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """Tokens `start` to `end` (exclusive, counted from the first sampled token) were sampled by policy `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion.

    Example: 5 tokens, a swap to version 8 after the third: `versions=(VersionSpan(7, 0, 3), VersionSpan(8, 3, 5))`.
    """

    token_ids: np.ndarray
    """int32 [T]: sampled ids, the stop token included."""
    logprobs: np.ndarray
    """float32 [T]: behaviour logprobs under the processed (temperature-scaled) distribution, in nats."""
    versions: tuple[VersionSpan, ...]
    """Covers 0..T without gaps, in order."""
    finish_reason: str
    """`stop`, `length` or `abort`."""
    text: str

    @property
    def oldest_version(self) -> int:
        return min(span.version for span in self.versions)


@dataclass(frozen=True, slots=True)
class Group:
    """All completions of one prompt, as the learner needs them."""

    uid: int
    """The admission that this group answers; unique in a run."""
    sample_id: str
    prompt_ids: np.ndarray
    """int32 [P]: prompt ids as the engine saw them, image placeholders expanded."""
    images: tuple[np.ndarray, ...]
    """uint8 [H, W, 3] each: the decoded pixels that the engine was given."""
    image_digests: tuple[str, ...]
    """sha256 of each image's shape and pixels, taken where the engine was fed."""
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class GroupMeta:
    """What the driver knows of a group: numbers only, no token arrays."""

    uid: int
    sample_id: str
    source: str
    lengths: tuple[int, ...]
    """Sampled tokens per completion."""
    prompt_length: int
    finish_reasons: tuple[str, ...]
    oldest_version: int
    newest_version: int
    worker: str
    started_s: float
    """Unix time when the worker handed the request to its engine."""
    finished_s: float
    defects: tuple[str | None, ...] = ()
    """Per completion what a text check found (`garbled`, `repeating`) or None; empty when no check was asked for."""
    image_patches: tuple[int, ...] = ()
    """Patches of each image of the prompt, as the vision tower takes them."""


@dataclass(frozen=True, slots=True)
class Grades:
    """What the graders said of a group's completions, in order; `None` marks a failed grader: not a wrong answer.

    Three numbers for each, which are one and the same unless a mixture of rewards grades.

    Example: right but long, weights 1 and 0.5, of a task with a mean of 0.5 and a deviation of 0.2 so far:
        Grades(rewards=(1.5,), raw=(0.8,), outcomes=(1.0,), statuses=("ok",),
               components=({"accuracy": 1.0, "length": 0.4},))
    """

    rewards: tuple[float | None, ...]
    """To learn from: a mixture's value, normalised for its task."""
    raw: tuple[float | None, ...]
    """The same before it was normalised, for curves that mean the same at every step."""
    outcomes: tuple[float | None, ...]
    """How right each completion is, whatever else is rewarded: accuracy, Pass@k, `all_right` and `all_wrong` are of
    these. None also where only the part of a mixture that says so has failed."""
    statuses: tuple[str, ...]
    components: tuple[Mapping[str, float], ...]
    """Named parts of each grade."""
    failure: str = ""
    """Status and reason of the first grader that failed."""


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """A finished group with its grades."""

    meta: GroupMeta
    payload: Any
    """`rl.mail.Part` that is a `Group`."""
    rewards: tuple[float | None, ...]
    """To train on: those of the grades, and None also for completions that a filter has masked out."""
    grades: Grades


@dataclass(frozen=True, slots=True)
class LostGroups:
    """Admissions whose tokens and pixels a learner rank could not get: the node that held them is gone."""

    uids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WeightBundle:
    """All weights of one version in one contiguous buffer, under Hugging Face checkpoint names."""

    version: int
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    """torch dtype names, such as `float32`."""
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    """Byte offset of each tensor in `buffer`."""
    buffer: np.ndarray | torch.Tensor
    """uint8 [bytes]; read-only when it comes from shared memory, a tensor when it lies on a GPU."""
    checksum: str = ""
    """Of the buffer, see `rl.sync.checksum`; it has been verified where this is set."""
    keep_cache: bool = False
    """Running requests go on with the keys and values of the old weights; else they are prefilled again."""
