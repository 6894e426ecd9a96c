"""Ray: joining or starting a cluster, and the actors of a run behind small handles."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import ray

from rl.config.data import PromptConfig
from rl.config.endpoint import EndpointConfig
from rl.config.learner import LearnerConfig
from rl.config.rollout import RewardConfig, RolloutConfig
from rl.config.train import TrainConfig
from rl.data.formats import OnBad
from rl.errors import ConfigError, DataError, EndpointUnavailable, EngineDeadError, EngineError, StarvationError
from rl.learner.actor import LearnerRank
from rl.rewarding import RewardWorker, carry, mixture_of
from rl.rollout.endpoint import EndpointPool
from rl.rollout.questions import CompletionTask
from rl.rollout.vllm_engine import engine_environment
from rl.rollout.worker import PromptTask, RolloutWorker

logger = logging.getLogger(__name__)

_ACTOR_CONCURRENCY = 4096
"""Calls that an asynchronous actor holds at once; admission bounds them long before."""
_NOTICE_S = 60.0
"""How often a start that takes long says what it waits for."""
_START_S = 1800.0
_CLOSE_S = 20.0
"""After this an actor that does not close, perhaps stuck in a collective, is killed as it is."""


def connect(address: str | None, rollout: RolloutConfig, learner: LearnerConfig | None = None) -> None:
    """Join `address`, the cluster of a surrounding Ray job, or start a local one.

    Raises:
        ConfigError: this machine is too small for the actors. A cluster that was joined may grow: it gets a warning.
    """
    if ray.is_initialized():
        return _check_capacity(rollout, learner, may_grow=True)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # A call with three results fails once and is awaited once; Ray would log the other two as errors that nobody saw,
    # and every request that the end of a run cuts short.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    target = address or os.environ.get("RAY_ADDRESS")
    if target:
        ray.init(address=target, logging_level=logging.WARNING, log_to_driver=True)
    else:
        ray.init(include_dashboard=False, logging_level=logging.WARNING, log_to_driver=True)
    _check_capacity(rollout, learner, may_grow=bool(target))


def _check_capacity(rollout: RolloutConfig, learner: LearnerConfig | None, may_grow: bool) -> None:
    """Refuse to start actors for which the cluster is too small: Ray would wait for ever without a word."""
    cpus, gpus = rollout.workers * rollout.cpus_per_worker, rollout.workers * rollout.gpus_per_worker
    settings = "rollout.workers, rollout.cpus_per_worker or rollout.gpus_per_worker"
    if learner is not None:
        cpus, gpus = cpus + learner.ranks * learner.threads, gpus + learner.ranks * learner.gpus_per_rank
        settings += ", learner.ranks, learner.threads or learner.gpus_per_rank"
    has = ray.cluster_resources()
    short = [
        f"{wanted:g} {kind}s where the cluster has {has.get(kind, 0):g}"
        for kind, wanted in (("CPU", cpus), ("GPU", gpus))
        if wanted > has.get(kind, 0)
    ]
    if not short:
        return
    message = f"the actors need {' and '.join(short)}; lower {settings}, or join a larger cluster (ray_address)"
    if not may_grow:
        raise ConfigError(message)
    logger.warning("%s. Waiting for nodes to join", message)


async def bring_up(waits: Mapping[str, Awaitable[Any]], limit_s: float = _START_S) -> None:
    """Wait for actors to be ready; says once a minute which are not.

    Raises:
        StarvationError: not all were ready within `limit_s` seconds.
        Exception: whatever the first actor that failed raised.
    """
    names = {asyncio.ensure_future(wait): name for name, wait in waits.items()}
    pending, started = set(names), time.monotonic()
    try:
        while pending:
            done, pending = await asyncio.wait(pending, timeout=_NOTICE_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if not pending:
                return
            free = ray.available_resources()
            missing = (
                f"{' and '.join(sorted(names[task] for task in pending))} not ready after "
                f"{time.monotonic() - started:.0f} s; free in the cluster: {free.get('CPU', 0):g} CPUs, "
                f"{free.get('GPU', 0):g} GPUs"
            )
            if time.monotonic() - started > limit_s:
                raise StarvationError(f"{missing}. Give up: see `ray status` and the actors' logs")
            logger.warning("%s", missing)
    finally:
        for task in pending:
            task.cancel()


async def _end(actors: Sequence[Any]) -> None:
    closing = asyncio.gather(*(actor.close.remote() for actor in actors), return_exceptions=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(closing, _CLOSE_S)
    for actor in actors:
        ray.kill(actor)


class RolloutPool:
    """The rollout workers; each request goes to the one with the fewest sequences in flight."""

    def __init__(self, config: RolloutConfig, model: str, prompts: PromptConfig, datasets: Sequence[str], on_bad: str):
        self.config = config
        actor = ray.remote(RolloutWorker).options(
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            max_concurrency=_ACTOR_CONCURRENCY,
            runtime_env={"env_vars": engine_environment(config.threads, config.gpus_per_worker)},
        )
        self.names = [f"rollout-{i}" for i in range(config.workers)]
        self.actors: list[Any] = [
            actor.remote(name, model, config.engine, prompts, tuple(datasets), on_bad) for name in self.names
        ]
        self._load = [0] * config.workers

    async def ready(self) -> None:
        await asyncio.gather(*(actor.ready.remote() for actor in self.actors))

    async def catalogue(self, dataset: str) -> tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]:
        """Ids, source by id, and answer types of a dataset, as the workers read it."""
        return await self.actors[0].catalogue.remote(dataset)

    async def generate(self, task: PromptTask) -> tuple[Any, Any, Any]:
        """(`GroupMeta`, reference to a `ScoringTask`, reference to a `Group`)."""
        i = self._load.index(min(self._load))
        self._load[i] += task.n
        try:
            meta, scoring, payload = self.actors[i].generate.options(num_returns=3).remote(task)
            return await meta, scoring, payload
        finally:
            self._load[i] -= task.n

    async def complete(self, task: CompletionTask) -> tuple[str, str, int]:
        """Text, finish reason and length of a completion, see `RolloutWorker.complete`; raises the remote cause."""
        i = self._load.index(min(self._load))
        self._load[i] += 1
        try:
            return await self.actors[i].complete.remote(task)
        except Exception as exc:
            cause = describe_failure(exc)
            if cause is exc:
                raise
            raise cause from exc
        finally:
            self._load[i] -= 1

    async def each(self, method: str, *args: Any) -> list[Any]:
        """Call a method on every worker at once."""
        return list(await asyncio.gather(*(getattr(actor, method).remote(*args) for actor in self.actors)))

    async def close(self) -> None:
        await _end(self.actors)


class RewardClient:
    """The reward workers, in turn."""

    def __init__(self, config: RewardConfig, answer_types: Sequence[str]) -> None:
        mixture_of(config, tuple(answer_types))  # its mistakes are the user's, and best seen before actors start
        actor = ray.remote(RewardWorker).options(num_cpus=0, max_concurrency=_ACTOR_CONCURRENCY)
        given = (config, tuple(answer_types), carry(config))
        self.actors: list[Any] = [actor.remote(*given) for _ in range(config.workers)]
        self._turn = 0

    async def ready(self) -> None:
        await asyncio.gather(*(actor.ready.remote() for actor in self.actors))

    async def score(self, scoring: Any, evaluation: bool = False) -> tuple[tuple[float | None, ...], tuple[str, ...]]:
        """Values and statuses of the completions behind a reference to a `ScoringTask`, see `RewardWorker.score`."""
        self._turn = (self._turn + 1) % len(self.actors)
        return await self.actors[self._turn].score.remote(scoring, evaluation)

    async def state_dict(self) -> list[dict[str, Any] | None]:
        """The state of each worker, in order."""
        return list(await asyncio.gather(*(actor.state_dict.remote() for actor in self.actors)))

    async def load_state_dict(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Give the saved states back in turn; a run with more workers than before gives some of them twice."""
        kept = [state for state in states if state is not None]
        if kept:
            pairs = zip(self.actors, itertools.cycle(kept), strict=False)
            await asyncio.gather(*(actor.load_state_dict.remote(state) for actor, state in pairs))

    async def answers(self, scoring: Any, limit: int) -> tuple[str | None, ...]:
        """Final answers, cut at `limit` characters, of the completions behind a reference to a `ScoringTask`."""
        return await self.actors[self._turn].answers.remote(scoring, limit)

    async def close(self) -> None:
        await _end(self.actors)


class LearnerGroup:
    """All ranks of the learner; every call goes to all of them, results come from rank 0."""

    def __init__(self, config: TrainConfig) -> None:
        learner = config.learner
        actor = ray.remote(LearnerRank).options(
            num_cpus=learner.threads,
            num_gpus=learner.gpus_per_rank,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": str(learner.threads), "HF_HUB_OFFLINE": "1"}},
        )
        self.ranks: list[Any] = [actor.remote(rank, config) for rank in range(learner.ranks)]

    async def start(self) -> None:
        address, port = await self.ranks[0].address.remote()
        await self._all("start", address, port)

    async def publish(self) -> Any:
        """Reference to the current `WeightBundle`."""
        refs = [rank.publish.remote() for rank in self.ranks]
        await asyncio.gather(*refs)
        return refs[0]

    async def set_probe(self, groups: Any) -> Any:
        """Give every rank the probe's groups, by reference; returns a reference to their logprobs."""
        refs = [rank.set_probe.remote(groups) for rank in self.ranks]
        await asyncio.gather(*refs)
        return refs[0]

    async def train(self, shares: Sequence[Sequence[Any]]) -> tuple[dict[str, float], Any, Any]:
        """(metrics, reference to the new `WeightBundle`, reference to the probe's logprobs)."""
        refs = [
            rank.train.options(num_returns=3).remote(list(updates))
            for rank, updates in zip(self.ranks, shares, strict=True)
        ]
        metrics = await asyncio.gather(*(ref[0] for ref in refs))
        return metrics[0], refs[0][1], refs[0][2]

    async def save(self, folder: str) -> None:
        await self._all("save", folder)

    async def load(self, folder: str) -> int:
        return (await self._all("load", folder))[0]

    async def close(self) -> None:
        await _end(self.ranks)

    async def _all(self, method: str, *args: Any) -> list[Any]:
        return list(await asyncio.gather(*(getattr(rank, method).remote(*args) for rank in self.ranks)))


@asynccontextmanager
async def scoring_actors(
    rollout: RolloutConfig, rewards: RewardConfig, model: str, prompts: PromptConfig, dataset: str, on_bad: str
) -> AsyncIterator[tuple[RolloutPool, RewardClient, tuple[str, ...]]]:
    """A rollout pool, reward workers and the ids of one dataset; closed on the way out.

    Raises the remote cause of a failure inside instead of Ray's wrapper.
    """
    pool = RolloutPool(rollout, model, prompts, [dataset], on_bad)
    client: RewardClient | None = None
    try:
        await bring_up({"rollout workers": pool.ready()})
        ids, _, answer_types = await pool.catalogue(dataset)
        client = RewardClient(rewards, answer_types)
        await bring_up({"reward workers": client.ready()})
        yield pool, client, ids
    except Exception as exc:
        cause = describe_failure(exc)
        if cause is exc:
            raise
        raise cause from exc
    finally:
        await asyncio.gather(*(part.close() for part in (pool, client) if part is not None))


@asynccontextmanager
async def scoring_endpoint(
    endpoint: EndpointConfig, rewards: RewardConfig, prompts: PromptConfig, dataset: str, on_bad: OnBad
) -> AsyncIterator[tuple[EndpointPool, RewardClient, tuple[str, ...]]]:
    """As `scoring_actors`, with a model behind an endpoint in place of rollout workers."""
    pool = EndpointPool(endpoint, prompts, dataset, on_bad)
    client: RewardClient | None = None
    try:
        ids, _, answer_types = await pool.catalogue(dataset)
        client = RewardClient(rewards, answer_types)
        await bring_up({"reward workers": client.ready()})
        yield pool, client, ids
    finally:
        await asyncio.gather(*(part.close() for part in (pool, client) if part is not None))


def failed_prompt(exc: BaseException) -> BaseException | None:
    """The remote cause if only one prompt failed, which is data; None if a part of the system did, which ends a run."""
    cause = describe_failure(exc)
    one_prompt = isinstance(cause, DataError | EngineError) and not isinstance(
        cause, EngineDeadError | EndpointUnavailable
    )
    return cause if one_prompt else None


def describe_failure(exc: BaseException) -> BaseException:
    """The remote cause of a Ray task error, or an EngineDeadError for a dead actor."""
    if isinstance(exc, ray.exceptions.RayTaskError):
        cause = exc.cause if isinstance(getattr(exc, "cause", None), BaseException) else None
        return cause or exc
    if isinstance(exc, ray.exceptions.RayActorError):
        return EngineDeadError(f"a worker died: {exc}")
    return exc
