"""A rollout worker: one engine and the datasets it draws prompts from, in one process.

Created as a Ray actor. The driver sends sample ids; token ids, logprobs and pixels leave as object references for the
learner, texts for the reward workers, and only numbers return to the driver.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rl.algo.text_checks import find_defect
from rl.config.data import PromptConfig
from rl.config.objective import FilterConfig
from rl.config.rollout import EngineConfig, SamplingConfig
from rl.config.sync import SyncConfig
from rl.data.formats import OnBad
from rl.data.store import DatasetNames, SampleStore
from rl.errors import EngineError, ImageLossError, RLError, first_lines
from rl.mail import Desk
from rl.models.encoder import EncodedPrompt, PromptEncoder
from rl.records import Group, GroupMeta, Rollout, Sample
from rl.rollout.engine import Engine, EngineLoad, GenerateRequest, PushTimes
from rl.rollout.engines import ENGINES
from rl.rollout.questions import CompletionTask
from rl.sync.base import Ticket
from rl.sync.worker import WeightReceiver

logger = logging.getLogger(__name__)

_LOOK_S = 0.02
"""How often a full queue is looked at: in the worker, where a look costs microseconds."""
_ENCODED_PROMPTS = 1024
"""Prompts kept encoded; their decoded images are most of the memory."""
NOT_FOR_GRADERS = ("options", "solution", "avg_reward", "tokens")
"""Columns that have a field of their own, or that no grader reads."""


@dataclass(frozen=True, slots=True)
class PromptTask:
    """What the driver asks a worker for."""

    uid: int
    dataset: str
    """Path of the dataset that holds the sample."""
    sample_id: str
    n: int
    seed: int
    sampling: SamplingConfig
    tag: str = "train"
    """Sets the requests of different callers apart."""
    checks: FilterConfig | None = None
    """Text checks to make on the completions."""


@dataclass(frozen=True, slots=True)
class RoomTask:
    """Asks for `RolloutWorker.room`."""


@dataclass(frozen=True, slots=True)
class ScoringTask:
    """What a reward worker needs to grade a group."""

    texts: tuple[str, ...]
    """Completions; with the `<think>` in front that the prompt ended in, so that a cut-off one is no bare answer."""
    answers: tuple[str, ...]
    answer_type: str
    prompt_type: str
    problem: str
    options: tuple[str, ...] | None
    source: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the row that hold plain data, for graders that read them."""

    @property
    def sample(self) -> dict[str, Any]:
        """The row as graders see it."""
        return {**self.columns, "source": self.source, "options": self.options, "prompt_type": self.prompt_type}


class RolloutWorker:
    """See the module docstring. Blocks in the constructor until the engine is ready; `ready` says if it is not."""

    def __init__(
        self,
        name: str,
        model: str,
        engine: EngineConfig,
        prompts: PromptConfig,
        datasets: tuple[str, ...],
        on_bad: OnBad = "raise",
        sync: SyncConfig | None = None,
    ) -> None:
        self.name = name
        self._weights = WeightReceiver(sync or SyncConfig())
        self._loaded = ""
        self._failure: RLError | None = None
        try:
            self.encoder = PromptEncoder(model, prompts)
            self.stores = {path: SampleStore(path, prompts, on_bad=on_bad) for path in datasets}
            self.engine: Engine = ENGINES[engine.backend](model, engine)
        except Exception as exc:
            # An actor whose constructor raises dies, and of its cause only the printed stack remains: `ready` says it.
            logger.debug("%s can't start", name, exc_info=exc)
            named = f"{name} can't start: {type(exc).__name__}: {first_lines(exc)}"
            self._failure = exc if isinstance(exc, RLError) else EngineError(named)
        self._encoded: dict[tuple[str, str], EncodedPrompt] = {}
        self._desk = Desk(self._answer, parts=2)
        self._probes: list[tuple[EncodedPrompt, np.ndarray]] = []

    async def ready(self) -> str:
        """The name.

        Raises:
            RLError: what kept the worker from starting; it can do nothing then.
        """
        if self._failure is not None:
            raise self._failure
        return self.name

    async def ping(self) -> None:
        """Returns when the engine answers: a process that lives may hold an engine that hangs."""
        await self.engine.ping()

    async def catalogue(self, dataset: str) -> DatasetNames:
        """The names in a dataset."""
        return self.stores[dataset].names()

    async def tasks(self, dataset: str, column: str) -> tuple[str, ...]:
        """The names of a dataset's tasks: what rows have in the column, or their answer type where they lack it."""
        rows = ((scoring_task(sample, ()).sample, sample.answer_type) for sample in self.stores[dataset])
        return tuple(sorted({str(row.get(column) or answer_type) for row, answer_type in rows}))

    async def example(self, dataset: str, sample_id: str) -> dict[str, Any]:
        """A sample as the report shows it: question, answers and images as base64 files."""
        sample = self.stores[dataset][sample_id]
        images = [base64.b64encode(data).decode() for data in sample.images]
        return {"problem": sample.problem, "answers": list(sample.answers), "images": images}

    async def generate(self, task: PromptTask) -> tuple[GroupMeta, ScoringTask, Group]:
        """One group: numbers for the driver, texts for a reward worker, tokens and pixels for the learner."""
        sample = self.stores[task.dataset][task.sample_id]
        prompt = self._encode(task.dataset, task.sample_id)
        started = time.time()
        request = self._request(f"{task.tag}-{task.uid}", prompt, task)
        generated = await self.engine.generate(request)
        if any(rollout.finish_reason == "abort" for rollout in generated.rollouts):
            raise EngineError(f"request {request.request_id} was aborted")
        patches = self.encoder.image_patches(generated.prompt_ids)
        if patches != prompt.patches:
            raise ImageLossError(
                f"sample {task.sample_id}: of its {len(prompt.images)} images, of {list(prompt.patches)} patches, the "
                f"engine saw {list(patches)}; it would answer blind, and training would learn from that: engine and "
                "learner must use the same image processor, and the engine take as many images as the prompt has"
            )
        rollouts = tuple(replace(r, text=self.encoder.decode(r.token_ids.tolist())) for r in generated.rollouts)
        meta = GroupMeta(
            uid=task.uid,
            sample_id=task.sample_id,
            source=sample.source,
            lengths=tuple(len(r.token_ids) for r in rollouts),
            prompt_length=len(generated.prompt_ids),
            finish_reasons=tuple(r.finish_reason for r in rollouts),
            oldest_version=min(r.oldest_version for r in rollouts),
            newest_version=max(span.version for r in rollouts for span in r.versions),
            worker=self.name,
            started_s=started,
            finished_s=time.time(),
            defects=() if task.checks is None else _defects(rollouts, task.checks),
            image_patches=patches,
        )
        scoring = scoring_task(sample, tuple("<think>" * prompt.opens_reasoning + r.text for r in rollouts))
        group = Group(task.uid, task.sample_id, generated.prompt_ids, prompt.images, prompt.digests, rollouts)
        return meta, scoring, group

    async def take(self, tasks: Sequence[tuple[int, PromptTask | RoomTask]]) -> None:
        """Begin to `generate` these, see `rl.mail`: the driver is told the numbers, the rest are parts."""
        await self._desk.take(tasks)

    async def collect(self) -> Any:
        """The groups that are done, see `rl.mail`."""
        return await self._desk.collect()

    async def _answer(self, task: PromptTask | RoomTask) -> tuple[Any, Any, Any]:
        return (await self.room(), None, None) if isinstance(task, RoomTask) else await self.generate(task)

    async def complete(self, task: CompletionTask) -> tuple[str, str, int]:
        """Text, finish reason and length of one completion of a question that is in no dataset."""
        question = task.question
        text = f"{question.system}\n{question.text}" if question.system else question.text
        sample = Sample(str(task.uid), text, ("",), question.images, "general", "any", "question")
        plain = self.encoder.prompts.model_copy(update={"think": "", "normal": "", "special_text": "neutralise"})
        prompt = self.encoder.encode(sample, plain)
        request = GenerateRequest(
            f"complete-{task.uid}",
            prompt.token_ids,
            prompt.images,
            1,
            task.seed,
            task.temperature,
            task.max_tokens,
            task.schema,
        )
        (rollout,) = (await self.engine.generate(request)).rollouts
        text = "<think>" * prompt.opens_reasoning + self.encoder.decode(rollout.token_ids.tolist())
        return text, rollout.finish_reason, len(rollout.token_ids)

    async def make_probe(self, tasks: list[PromptTask]) -> tuple[list[Group], int]:
        """Sample the fixed sequences of the probe, which every worker and the learner get; and their number."""
        groups = [(await self.generate(task))[2] for task in tasks]
        return groups, len(groups)

    async def set_probe(self, tasks: list[PromptTask], groups: list[Group]) -> None:
        """Keep the probe's sequences, in place of those kept before."""
        self._probes = []
        for task, group in zip(tasks, groups, strict=True):
            prompt = self._encode(task.dataset, task.sample_id)
            self._probes += [(prompt, rollout.token_ids) for rollout in group.rollouts]

    async def probe(self, learner: np.ndarray) -> tuple[float, float, int]:
        """Mean and largest |engine - learner| logprob in nats over the probe's tokens, and the engine's version."""
        parts = await asyncio.gather(*(self.engine.score(p.token_ids, p.images, ids) for p, ids in self._probes))
        delta = np.abs(np.concatenate(parts) - learner)
        return float(delta.mean()), float(delta.max()), self.engine.version

    async def update_weights(self, ticket: Ticket) -> PushTimes:
        """Fetch the ticket's weights while the engine generates, then swap them with requests in flight.

        Raises:
            FetchError: no transport brought them; the engine goes on with the old ones.
            SyncError: the engine could not load them, and refuses work.
        """
        begin = time.monotonic()
        async with self._weights.fetched(ticket) as bundle:
            fetched = time.monotonic() - begin
            times = await self.engine.update_weights(bundle)
            self._loaded = bundle.checksum
        return replace(times, fetch_s=fetched, transport=self._weights.transport)

    async def loaded(self) -> tuple[int, str]:
        """Version of the engine's weights, and the checksum of the bundle that they came in, if in one."""
        return self.engine.version, self._loaded

    async def abort(self, uids: Sequence[int]) -> None:
        """Drop the training prompts among these that this worker has in flight; their `generate` raises EngineError."""
        for uid in uids:
            await self.engine.abort(f"train-{uid}")

    async def load(self) -> EngineLoad:
        """The engine's load at this moment."""
        return self.engine.load()

    async def room(self) -> EngineLoad:
        """The engine's load once no more sequences wait than half of those that decode."""
        await self.engine.ping()  # what came before this call has reached the queue
        while (load := self.engine.load()).waiting > load.running / 2:
            await asyncio.sleep(_LOOK_S)
            await self.engine.ping()  # raises when the engine has died
        return load

    async def busy(self) -> list[tuple[float, float]]:
        """Unix (start, end) intervals in which the engine computed, since the last call."""
        return self.engine.drain_busy()

    async def close(self) -> None:
        self._weights.close()
        if self._failure is None:
            self.engine.close()

    def _request(self, request_id: str, prompt: EncodedPrompt, task: PromptTask) -> GenerateRequest:
        return GenerateRequest(
            request_id=request_id,
            prompt_ids=prompt.token_ids,
            images=prompt.images,
            n=task.n,
            seed=task.seed,
            temperature=task.sampling.temperature,
            max_tokens=task.sampling.max_tokens,
        )

    def _encode(self, dataset: str, sample_id: str) -> EncodedPrompt:
        key = (dataset, sample_id)
        if key not in self._encoded:
            if len(self._encoded) >= _ENCODED_PROMPTS:
                self._encoded.clear()
            self._encoded[key] = self.encoder.encode(self.stores[dataset][sample_id])
        return self._encoded[key]


def scoring_task(sample: Sample, texts: tuple[str, ...]) -> ScoringTask:
    """What a reward worker needs to grade these completions of a sample."""
    options = sample.extra.get("options")
    columns = {"problem_type": sample.problem_type} | {
        name: value
        for name, value in sample.extra.items()
        if value is not None and name not in NOT_FOR_GRADERS and _is_plain(value)
    }
    return ScoringTask(
        texts=texts,
        answers=sample.answers,
        answer_type=sample.answer_type,
        prompt_type=sample.prompt_type,
        problem=sample.problem,
        options=tuple(options) if options is not None else None,
        source=sample.source,
        columns=columns,
    )


def _defects(rollouts: tuple[Rollout, ...], checks: FilterConfig) -> tuple[str | None, ...]:
    return tuple(find_defect(r.text, r.token_ids, r.logprobs, checks) for r in rollouts)


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold it: a reward service has to get it."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
