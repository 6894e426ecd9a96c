"""Plain transformers as an `Engine`, for models that neither vLLM nor SGLang serves. Correct and slow.

Sequences that are admitted together form a wave with a cache of its own; waves take turns, one token each, on one
thread. New weights are loaded between two turns; every wave is then prefilled anew, unless its keys are to be kept.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch

from rl.config.rollout import EngineConfig
from rl.errors import EngineError, first_lines
from rl.records import Rollout, VersionSpan, WeightBundle
from rl.rollout.engine import EngineLoad, Generated, GenerateRequest, PushTimes
from rl.rollout.engine_thread import EngineThread
from rl.rollout.limits import ModelLimits, is_greedy
from rl.rollout.transformers_model import Batch, DecodingModel, Prompt


def transformers_environment(threads: int, gpus: float) -> dict[str, str]:
    """Environment of a worker."""
    env = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    return env | ({"CUDA_VISIBLE_DEVICES": ""} if gpus == 0 else {})


@dataclass(slots=True, eq=False)
class _Sequence:
    """One completion on its way."""

    request: GenerateRequest
    prompt: Prompt
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[VersionSpan] = field(default_factory=list)
    finish: str | None = None

    def take(self, token: int, logprob: float, version: int) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        end = len(self.ids)
        if self.spans and self.spans[-1].version == version:
            self.spans[-1] = VersionSpan(version, self.spans[-1].start, end)
        else:
            self.spans.append(VersionSpan(version, end - 1, end))


@dataclass(slots=True, eq=False)
class _Wave:
    """Sequences that were admitted together and decode in step."""

    rows: list[_Sequence]
    batch: Batch


class TransformersEngine:
    """See `rl.rollout.engine.Engine`. Blocks in the constructor until the model is loaded.

    A seed decides the samples of a completion up to rounding: what it is batched with changes the last bits of logits.
    """

    def __init__(self, model: str, config: EngineConfig, version: int = 0) -> None:
        self._limits = ModelLimits.of(model, config)
        try:
            self._model = DecodingModel(model, getattr(torch, config.dtype))
        except EngineError:
            raise
        except Exception as exc:
            raise EngineError(f"transformers could not load {model}: {first_lines(exc)}") from exc
        self._most = 1 if config.deterministic else config.max_num_seqs
        self._version = version
        self._groups: dict[str, list[_Sequence]] = {}
        self._waiting: deque[_Sequence] = deque()
        self._waves: list[_Wave] = []
        self._thread = EngineThread("transformers", lambda: bool(self._waiting or self._waves), self._step)

    @property
    def version(self) -> int:
        return self._version

    async def generate(self, request: GenerateRequest) -> Generated:
        self._limits.check(request)
        if request.schema is not None:
            raise EngineError("the transformers backend can't hold completions to a schema; choose another backend")
        sequences: list[_Sequence] = await self._thread.request(request.request_id, lambda: self._add(request))
        return Generated(sequences[0].prompt.ids.astype(np.int32), tuple(map(_rollout, sequences)))

    async def score(
        self, prompt_ids: tuple[int, ...], images: tuple[np.ndarray, ...], response: np.ndarray
    ) -> np.ndarray:
        self._limits.check_prompt(prompt_ids, images, room=len(response))
        return await self._thread.call(lambda: self._model.score(self._model.prompt(prompt_ids, images), response))

    async def update_weights(self, bundle: WeightBundle) -> PushTimes:
        return await self._thread.swap(bundle.version, lambda: self._swap(bundle))

    async def abort(self, request_id: str) -> None:
        await self._thread.call(lambda: self._abort(request_id))

    async def pause(self) -> None:
        await self._thread.pause(True)

    async def resume(self) -> None:
        await self._thread.pause(False)

    async def ping(self) -> None:
        await self._thread.call(lambda: None)

    def load(self) -> EngineLoad:
        # Its cache grows as it needs, so no share of it is in use.
        return EngineLoad(sum(len(wave.rows) for wave in list(self._waves)), len(self._waiting), 0.0, self._most)

    def drain_busy(self) -> list[tuple[float, float]]:
        return self._thread.busy.drain()

    def close(self) -> None:
        self._thread.close()

    # ---- on the engine thread -------------------------------------------------------------------------------------

    def _add(self, request: GenerateRequest) -> None:
        prompt = self._model.prompt(request.prompt_ids, request.images)
        device = self._model.device
        sequences = [
            _Sequence(request, prompt, torch.Generator(device).manual_seed(request.seed + i)) for i in range(request.n)
        ]
        self._groups[request.request_id] = sequences
        self._waiting.extend(sequences)

    def _step(self) -> None:
        """A token for every sequence in a wave; and those that wait form a wave if there is room."""
        room = self._most - sum(len(wave.rows) for wave in self._waves)
        joining = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        if joining:
            self._waves.append(_Wave(joining, Batch()))
        for wave in self._waves:
            self._advance(wave)
        self._waves = [wave for wave in self._waves if wave.rows]

    def _advance(self, wave: _Wave) -> None:
        logits = self._model.logits(wave.batch, [(row.prompt, row.ids) for row in wave.rows])
        logits[:, list(self._limits.unsampled)] = -torch.inf
        for row, row_logits in zip(wave.rows, logits, strict=True):
            greedy = is_greedy(row.request.temperature)
            logprobs = (row_logits if greedy else row_logits / row.request.temperature).log_softmax(-1)
            token = int(logprobs.argmax() if greedy else torch.multinomial(logprobs.exp(), 1, generator=row.generator))
            row.take(token, float(logprobs[token]), self._version)
            if token in self._limits.stops:
                row.finish = "stop"
            elif len(row.ids) == min(row.request.max_tokens, self._limits.max_len - len(row.prompt.ids)):
                row.finish = "length"
        for row in wave.rows:
            self._settle(row.request.request_id)
        self._drop_finished(wave)

    def _drop_finished(self, wave: _Wave) -> None:
        kept = [i for i, row in enumerate(wave.rows) if row.finish is None]
        if 0 < len(kept) < len(wave.rows):
            self._model.keep(wave.batch, kept)
        wave.rows = [wave.rows[i] for i in kept]

    def _settle(self, request_id: str) -> None:
        """Answer a request all of whose completions have ended."""
        sequences = self._groups.get(request_id, [])
        if sequences and all(sequence.finish for sequence in sequences):
            del self._groups[request_id]
            self._thread.finish(request_id, sequences)

    def _abort(self, request_id: str) -> None:
        for sequence in self._groups.get(request_id, []):
            sequence.finish = sequence.finish or "abort"
        self._settle(request_id)
        self._waiting = deque(sequence for sequence in self._waiting if sequence.finish is None)
        for wave in self._waves:
            self._drop_finished(wave)
        self._waves = [wave for wave in self._waves if wave.rows]

    def _swap(self, bundle: WeightBundle) -> PushTimes:
        begin = time.monotonic()
        try:
            self._model.load(bundle)
        except BaseException as exc:
            self._thread.fail(exc)
            raise
        if not bundle.keep_cache:
            for wave in self._waves:
                wave.batch = Batch()
        self._version = bundle.version
        taken = time.monotonic() - begin
        return PushTimes(pause_s=taken, apply_s=taken)


def _rollout(sequence: _Sequence) -> Rollout:
    return Rollout(
        np.asarray(sequence.ids, np.int32),
        np.asarray(sequence.logprobs, np.float32),
        tuple(sequence.spans),
        sequence.finish or "abort",
        text="",
    )
