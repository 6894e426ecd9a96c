"""The workers of a run behind small handles: rollout workers and reward workers."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rl.config.data import PromptConfig
from rl.config.endpoint import EndpointConfig
from rl.config.rollout import RewardConfig, RolloutConfig
from rl.config.sync import SyncConfig
from rl.data.formats import OnBad
from rl.data.store import DatasetNames
from rl.errors import FetchError
from rl.failures import remote_causes
from rl.fleet import Fleet
from rl.liveness import keep_alive
from rl.mail import Mail
from rl.nodes import bring_up, close_actors, lacks_now, placement
from rl.records import Grades, GroupMeta
from rl.reward_setup import Carried, carry, check_answer_types
from rl.rewarding import JudgeWorker, RewardWorker
from rl.rollout.endpoint import EndpointPool
from rl.rollout.engine import EngineLoad, PushTimes
from rl.rollout.engines import engine_environment
from rl.rollout.questions import CompletionTask
from rl.rollout.worker import PromptTask, RolloutWorker, RoomTask
from rl.watch import watching

logger = logging.getLogger(__name__)

_ACTOR_CONCURRENCY = 4096
"""Calls that an asynchronous actor holds at once; admission bounds them long before."""
_STATE_S = 10.0
"""How long a checkpoint waits for the states of the reward workers, which are small."""


class RolloutPool:
    """The rollout workers; each request goes to the one with the fewest sequences in flight.

    A worker that dies or hangs is replaced, gets the newest weights, and what it had in flight goes to the others.
    Groups wait here, not in an engine, while the engines' queues are long.
    """

    def __init__(
        self,
        config: RolloutConfig,
        model: str,
        prompts: PromptConfig,
        datasets: Sequence[str],
        on_bad: str,
        sync: SyncConfig | None = None,
    ) -> None:
        self.config = config
        env = engine_environment(config.engine.backend, config.threads, config.gpus_per_worker)
        # Weights are fetched by `ray.get` in a thread, which holds no event loop up; Ray warns of it all the same.
        env["RAY_WARN_BLOCKING_GET_INSIDE_ASYNC"] = "0"
        actor = ray.remote(RolloutWorker).options(
            num_cpus=config.cpus_per_worker,
            num_gpus=config.gpus_per_worker,
            max_concurrency=_ACTOR_CONCURRENCY,
            runtime_env={"env_vars": env},
            **placement(config),
        )
        self._names = (f"rollout-{number}" for number in itertools.count())
        self.fleet = Fleet(
            list(itertools.islice(self._names, config.workers)),
            lambda name: actor.remote(name, model, config.engine, prompts, tuple(datasets), on_bad, sync),
            config.faults,
            self._refit,
            room=self._room,
        )
        self._mail = Mail(parts=2)
        self._weights: Any = None
        self._probe: tuple[list[PromptTask], Any] | None = None

    async def ready(self) -> None:
        await self.fleet.start()

    async def add(self, count: int) -> list[str]:
        """Start further workers; returns their names, which no worker of the run had before."""
        names = list(itertools.islice(self._names, count))
        for name in names:
            self.fleet.add(name)
        return names

    def lacks_room(self) -> bool:
        """Whether the cluster has no room for a further worker now."""
        return lacks_now(self.config, self.config.cpus_per_worker, self.config.gpus_per_worker)

    async def catalogue(self, dataset: str) -> DatasetNames:
        """The names in a dataset, as the workers read it."""
        return await self.fleet.run(lambda actor: actor.catalogue.remote(dataset))

    async def example(self, dataset: str, sample_id: str) -> dict[str, Any]:
        """See `RolloutWorker.example`."""
        return await self.fleet.run(lambda actor: actor.example.remote(dataset, sample_id))

    async def tasks(self, dataset: str, column: str) -> tuple[str, ...]:
        """The tasks of a dataset, see `RolloutWorker.tasks`."""
        return await self.fleet.run(lambda actor: actor.tasks.remote(dataset, column))

    async def generate(self, task: PromptTask) -> tuple[GroupMeta, Any, Any]:
        """(`GroupMeta`, `Part` that is a `ScoringTask`, `Part` that is a `Group`)."""
        return await self.fleet.run(lambda actor: self._mail.to(actor).ask(task), weight=task.n, queued=True)

    async def complete(self, task: CompletionTask) -> tuple[str, str, int]:
        """Text, finish reason and length of a completion, see `RolloutWorker.complete`; raises the remote cause."""
        with remote_causes():
            return await self.fleet.run(lambda actor: actor.complete.remote(task))

    async def push(self, ticket: Any) -> list[PushTimes]:
        """Swap the weights of every engine, and of every one that replaces another, for those behind a `Ticket`."""
        self._weights = ticket
        return list((await self.each("update_weights", ticket)).values())

    async def make_probe(self, tasks: list[PromptTask]) -> Any:
        """Sample the sequences of the probe and give them to every engine; returns a reference to them."""

        async def sample(actor: Any) -> Any:
            groups, count = actor.make_probe.options(num_returns=2).remote(tasks)
            await count
            return groups

        groups = await self.fleet.run(sample)
        self._probe = (tasks, groups)
        await self.each("set_probe", tasks, groups)
        return groups

    def keep_probe(self, groups: Any) -> None:
        """A further copy of the probe's sequences, which outlives the worker that sampled them."""
        assert self._probe is not None
        self._probe = (self._probe[0], groups)

    async def each(self, method: str, *args: Any) -> dict[str, Any]:
        """Call a method on every worker that serves, at once; results by name."""
        return await self.fleet.each(lambda actor: getattr(actor, method).remote(*args), bare=not args)

    async def _room(self, actor: Any) -> EngineLoad:
        load: EngineLoad
        load, *_ = await self._mail.to(actor).ask(RoomTask())  # by mail, so that the load counts what was asked before
        return load

    async def _refit(self, actor: Any) -> None:
        probe: Any = None
        weights: Any = None
        while probe is not self._probe or weights is not self._weights:  # a push may come while one is applied
            if probe is not self._probe:
                probe = self._probe
                await actor.set_probe.remote(*probe)
            if weights is not self._weights:
                weights = self._weights
                try:
                    await actor.update_weights.remote(weights)
                except FetchError:
                    if weights is self._weights:
                        raise  # else the learner has gone on meanwhile, and keeps no older ones

    async def close(self) -> None:
        await self.fleet.stop()
        await close_actors(self.fleet.actors)


class RewardClient:
    """The reward workers, and the worker of the judges that a mixture names.

    A group goes to the worker with the fewest in hand. One that dies or hangs is replaced; that of the judges is
    started anew by Ray.

    Args:
        carried: what `carry(config)` read.
    Raises:
        ConfigError: as `carry`; or rows that only a judge can grade, and none is configured.
    """

    def __init__(self, config: RewardConfig, answer_types: Sequence[str], carried: Carried | None = None) -> None:
        carried = carried or carry(config)
        check_answer_types(config, carried.mixture, answer_types)
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": _ACTOR_CONCURRENCY}
        self.judges: Any = None
        if carried.mixture is not None and carried.mixture.judges:
            # On this machine, which the paths of the caches are meant for. It keeps its handle when Ray restarts it.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            judge = ray.remote(JudgeWorker).options(
                **options, scheduling_strategy=here, max_restarts=-1, max_task_retries=2
            )
            self.judges = judge.remote(carried.mixture.judges, carried.secrets)
        actor = ray.remote(RewardWorker).options(**options, **placement(config))
        given = (config, tuple(answer_types), carried, self.judges)
        self.config, self._names = config, (f"reward-{number}" for number in itertools.count())
        names = list(itertools.islice(self._names, config.workers))
        self.fleet = Fleet(names, lambda name: actor.remote(*given), config.faults, self._refit)
        self._states: list[Mapping[str, Any]] = []
        self._mail = Mail()
        self._watching: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        if self.judges is not None:
            await self.judges.ready.remote()
            self._watching = asyncio.create_task(
                keep_alive("the worker of the judges", self.judges, self.config.faults)
            )
        await self.fleet.start()

    async def add(self, count: int) -> list[str]:
        """Start further workers, which go on from the state that one has now; returns their names."""
        await self.state_dict()
        names = list(itertools.islice(self._names, count))
        for name in names:
            self.fleet.add(name)
        return names

    def lacks_room(self) -> bool:
        """Whether the cluster has no room for a further worker now."""
        return lacks_now(self.config, 0, 0)

    async def score(self, scoring: Any, evaluation: bool = False) -> Grades:
        """The grades of the completions of a `ScoringTask` or of the `Part` that is one, see `RewardWorker.score`."""
        return await self.fleet.run(lambda actor: self._mail.to(actor).ask((scoring, evaluation)))

    async def state_dict(self) -> list[dict[str, Any] | None]:
        """The states of the workers, which have one with a mixture; the last known where one is late with it."""
        if self.config.mixture is None:
            return []
        try:
            async with asyncio.timeout(_STATE_S):
                states = await self.fleet.each(lambda actor: actor.state_dict.remote(), bare=True)
        except TimeoutError:
            logger.warning("a reward worker has not told its state in %g s; the last known is kept", _STATE_S)
            return [dict(state) for state in self._states]
        self._states = [state for state in states.values() if state is not None]
        return list(states.values())

    async def load_state_dict(self, states: Sequence[Mapping[str, Any] | None]) -> None:
        """Give the saved states back in turn; a run with more workers than before gives some of them twice."""
        self._states = [state for state in states if state is not None]
        if self._states:
            turn = itertools.cycle(self._states)
            await self.fleet.each(lambda actor: actor.load_state_dict.remote(next(turn)))

    async def answers(self, scoring: Any, limit: int) -> tuple[str | None, ...]:
        """Final answers, cut at `limit` characters, of the completions of a `ScoringTask` or of its `Part`."""
        return await self.fleet.run(lambda actor: actor.answers.remote(scoring, limit))

    async def _refit(self, actor: Any) -> None:
        """A worker that replaces another goes on from the state last saved: the newest died with its holder."""
        if self._states:
            await actor.load_state_dict.remote(self._states[0])

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await self.fleet.stop()
        await close_actors([*self.fleet.actors, *([] if self.judges is None else [self.judges])])


@asynccontextmanager
async def scoring_actors(
    rollout: RolloutConfig, rewards: RewardConfig, model: str, prompts: PromptConfig, dataset: str, on_bad: str
) -> AsyncIterator[tuple[RolloutPool, RewardClient, tuple[str, ...]]]:
    """A rollout pool, reward workers and the ids of one dataset; closed on the way out.

    Raises the remote cause of a failure inside instead of Ray's wrapper.
    """
    carried = carry(rewards)  # its mistakes are the user's, and best seen before actors start
    pool = RolloutPool(rollout, model, prompts, [dataset], on_bad)
    client: RewardClient | None = None
    try:
        async with watching():
            with remote_causes():
                await bring_up({"rollout workers": pool.ready()})
                ids, _, answer_types = await pool.catalogue(dataset)
                client = RewardClient(rewards, answer_types, carried)
                await bring_up({"reward workers": client.ready()})
                yield pool, client, ids
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
        async with watching():
            yield pool, client, ids
    finally:
        await asyncio.gather(*(part.close() for part in (pool, client) if part is not None))
