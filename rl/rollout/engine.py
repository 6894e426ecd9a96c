"""The engine interface: token ids and images in; ids, behaviour logprobs and version spans out.

Every engine keeps requests alive across a weight update, and says for each token which version sampled it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rl.records import Rollout, WeightBundle


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """`n` completions of one prompt. Completion `i` is sampled with seed `seed + i`, where the engine heeds seeds."""

    request_id: str
    prompt_ids: tuple[int, ...]
    """Image placeholders not expanded: one per image."""
    images: tuple[np.ndarray, ...]
    """uint8 [H, W, 3] each."""
    n: int
    seed: int
    temperature: float
    max_tokens: int
    schema: Mapping[str, Any] | None = None
    """JSON schema that completions are held to; never for completions to train on."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What the engine saw and sampled."""

    prompt_ids: np.ndarray
    """int32 [P]: with image placeholders expanded."""
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True, slots=True)
class PushTimes:
    """Seconds: how long generation stood still, and how much of that the copy into the engine took."""

    pause_s: float
    apply_s: float
    fetch_s: float = 0.0
    """Before the pause: bringing the weights to the worker."""
    transport: str = ""
    """What brought them."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """How busy an engine is, in sequences. The defaults are those of an engine that gives no figures."""

    running: int = 0
    """Sequences that it decodes now."""
    waiting: int = 0
    """Sequences that it holds and can't decode yet, for want of a slot or of cache."""
    kv_use: float = 0.0
    """Share (0..1) of the key-value cache in use."""
    slots: int | None = None
    """Sequences that it decodes at once at most; None: it gives no figures, and its queue is not looked at."""


class Engine(Protocol):
    """One model on one set of devices, serving many requests at once."""

    async def generate(self, request: GenerateRequest) -> Generated:
        """The completions; of an aborted request what there was of them.

        Raises:
            EngineError: the request was refused.
            EngineDeadError: the engine can serve nothing more.
        """
        ...

    async def score(
        self, prompt_ids: tuple[int, ...], images: tuple[np.ndarray, ...], response: np.ndarray
    ) -> np.ndarray:
        """Logprobs float32 [R] of given response tokens under the current weights at temperature 1."""
        ...

    async def update_weights(self, bundle: WeightBundle) -> PushTimes:
        """Pause and keep requests, swap weights, drop stale keys and values, set the version, resume.

        An engine that was paused before stays so, and no pause is counted twice.

        Raises SyncError when the swap failed; the engine then refuses work, so no mixed weights are ever sampled.
        Raises EngineDeadError when the engine died on the way, which says nothing of the weights, and FetchError when
        they did not come to it: it goes on with the old ones.
        """
        ...

    async def abort(self, request_id: str) -> None:
        """End a request if it is in flight; its `generate` returns what was sampled.

        Completions that had not ended have the finish reason `abort`, and perhaps no token.
        """
        ...

    async def pause(self) -> None:
        """Stop between two steps, with requests kept; new ones wait, pings are answered, weights can be swapped.

        Returns once no step runs. An abort ends its request at `resume` at the latest.
        """
        ...

    async def resume(self) -> None:
        """Go on after `pause`, whatever was pushed meanwhile; nothing happens where nothing is paused."""
        ...

    async def ping(self) -> None:
        """Returns when the engine has got to it between two steps. Raises EngineDeadError if it never will."""
        ...

    @property
    def version(self) -> int: ...

    def load(self) -> EngineLoad:
        """The load at this moment; cheap, from any thread."""
        return EngineLoad()

    def drain_busy(self) -> list[tuple[float, float]]:
        """Unix (start, end) intervals in which the engine computed, since the last call."""
        ...

    def close(self) -> None: ...
