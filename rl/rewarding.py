"""The graders of a run: Ray actors around a pool of killable processes, or around the client of a service, and judges.

ScoringTask -> RewardWorker -> RewardPool or RemotePool
                    |
                    +--------> JudgeWorker, one for the run: its limits and its cache hold for all workers
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.config.rollout import RewardConfig
from rl.errors import ActorLostError, EngineDeadError, first_lines
from rl.mail import Columns, Desk, Part
from rl.records import Grades
from rl.reward_setup import Carried, PluginFile, carry

if TYPE_CHECKING:
    from rewards import JudgeConfig, JudgePool, RemotePool, Request, RewardPool, RewardResult

logger = logging.getLogger(__name__)


class RewardWorker:
    """Grades groups. Created as a Ray actor; needs no GPU and no model.

    Args:
        judges: handle of the run's `JudgeWorker`; without one a mixture's judges are asked from this process.
    """

    def __init__(
        self, config: RewardConfig, answer_types: tuple[str, ...], carried: Carried | None = None, judges: Any = None
    ) -> None:
        from rewards import Mixture

        carried = carried or carry(config)
        mixture = carried.mixture
        names = sorted({*answer_types, *(mixture.verifiers() if mixture is not None else ())})
        self._folder = tempfile.TemporaryDirectory(prefix="reward-plugins-")
        self.pool = make_pool(config, names, carried, Path(self._folder.name))
        self.mixture: Mixture | None = None
        if mixture is not None:
            remote = None if judges is None else {name: RemoteJudge(judges, name) for name in mixture.judges}
            self.mixture = Mixture(mixture, pool=self.pool, plugins=config.plugins, judges=remote)
        self._told: set[str] = set()
        self._desk, self._columns = Desk(self._grade), Columns()

    async def ready(self) -> bool:
        return True

    async def ping(self) -> None:
        """Returns if the process lives; graders that hang are killed by the pool."""

    async def take(self, questions: Sequence[tuple[int, tuple[Any, bool]]]) -> None:
        """Begin to `score` these, see `rl.mail`: each a `ScoringTask`, or the `Part` that is one, and `evaluation`."""
        await self._desk.take(questions)

    async def collect(self) -> Any:
        """The grades that are there, see `rl.mail`."""
        return await self._desk.collect()

    async def _grade(self, question: tuple[Any, bool]) -> Grades:
        scoring, evaluation = question
        return await self.score(await self._opened(scoring), evaluation)

    async def score(self, task: Any, evaluation: bool = False) -> Grades:
        """The grades of a `ScoringTask`'s completions.

        With `evaluation` by the answer type alone, so that a right completion has the value 1 whatever the mixture.
        """

        with self._breaks():
            results = await self._results(task, evaluation)
        for result in results:
            if result.value is None:
                self._tell(task.answer_type, result)
        return grades_of(results, mixed=self.mixture is not None and not evaluation)

    async def _results(self, task: Any, evaluation: bool) -> Sequence[RewardResult]:
        from rewards import Request

        requests = [Request(text, task.answers, task.answer_type, task.problem, task.sample) for text in task.texts]
        if self.mixture is None:
            return await self.pool.ascore_many(requests)
        if evaluation:
            return await self.mixture.ascore_plain(requests)
        return await self.mixture.ascore_many(requests)

    @contextlib.contextmanager
    def _breaks(self) -> Iterator[None]:
        """A pool of processes that can start no more of them, say for want of memory, is broken for good; a new worker
        may find more. A service has no such end: its pool waits, and what it raises is for the user."""
        from rewards import PoolError, RewardPool

        try:
            yield
        except PoolError as exc:
            if isinstance(self.pool, RewardPool):
                raise EngineDeadError(f"the graders of this worker can't go on: {exc}") from exc
            raise

    def _tell(self, answer_type: str, result: RewardResult) -> None:
        """Log why a grader failed, once for each kind of failure; the loop counts them."""
        kind = f"{answer_type}: {result.status}"
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("a grader failed (%s): %s. Further ones of this kind are only counted", kind, result.detail)

    async def state_dict(self) -> dict[str, Any] | None:
        """What a resumed run must know: the mixture's running statistics, None without a mixture."""
        return None if self.mixture is None else self.mixture.state_dict()

    async def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; a run that has no mixture any more has no use for it."""
        if self.mixture is not None:
            self.mixture.load_state_dict(state)

    async def answers(self, task: Any, limit: int) -> tuple[str | None, ...]:
        """The final answers of a `ScoringTask`'s completions, cut at `limit` characters; None where there is none."""
        task = await self._opened(task)
        from rewards.extract import final_answer

        found = (final_answer(text) for text in task.texts)
        return tuple(None if answer is None else answer[:limit] for answer in found)

    async def _opened(self, scoring: Any) -> Any:
        return await self._columns.fetch(scoring) if isinstance(scoring, Part) else scoring

    async def close(self) -> None:
        if self.mixture is not None:
            self.mixture.close()
        self.pool.close()
        self._folder.cleanup()


class JudgeWorker:
    """All judges of a run behind one Ray actor, so that their limits hold for the run and their caches have one writer.

    Args:
        secrets: API keys by the environment variables that the settings name.
    """

    def __init__(self, judges: Mapping[str, JudgeConfig], secrets: Mapping[str, str]) -> None:
        from rewards import JudgePool

        self.pools: dict[str, JudgePool] = {name: JudgePool(judge, secrets) for name, judge in judges.items()}

    async def ready(self) -> bool:
        return True

    async def ping(self) -> None:
        """Returns if the process lives and takes calls; a judge that does not reply has a deadline of its own."""

    async def score(self, judge: str, requests: Sequence[Request]) -> list[RewardResult]:
        return await self.pools[judge].ascore_many(requests)

    async def close(self) -> None:
        for pool in self.pools.values():
            pool.close()


class RemoteJudge:
    """One judge of a `JudgeWorker` that is an actor elsewhere, as a mixture asks it."""

    def __init__(self, worker: Any, name: str) -> None:
        self._worker, self._name = worker, name

    async def ascore_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        with _judges_there():
            found: list[RewardResult] = await self._worker.score.remote(self._name, list(requests))
        return found

    def score_many(self, requests: Iterable[Request]) -> list[RewardResult]:
        import ray

        with _judges_there():
            found: list[RewardResult] = ray.get(self._worker.score.remote(self._name, list(requests)))
        return found


@contextlib.contextmanager
def _judges_there() -> Iterator[None]:
    """A lost worker of the judges ends the run; by Ray's own error it would be taken for the one that asked."""
    import ray

    try:
        yield
    except ray.exceptions.RayActorError as exc:
        raise ActorLostError(f"the worker of the judges is gone: {first_lines(exc, lines=1)}") from exc


def grades_of(results: Sequence[RewardResult], mixed: bool) -> Grades:
    """The results of one group; `mixed` are those of a mixture, which says in its components how right each one is."""
    values = tuple(result.value for result in results)
    parts = tuple(dict(result.components) for result in results)
    failed = next((result for result in results if result.value is None), None)
    return Grades(
        rewards=values,
        raw=tuple(part.pop("raw", None) for part in parts) if mixed else values,
        outcomes=tuple(part.pop("outcome", None) for part in parts) if mixed else values,
        statuses=tuple(result.status for result in results),
        components=parts,
        failure="" if failed is None else f"{failed.status}: {failed.detail}" if failed.detail else failed.status,
    )


def make_pool(
    config: RewardConfig, answer_types: Sequence[str], carried: Carried, folder: Path
) -> RewardPool | RemotePool:
    """Local processes or the client of a service; `folder` takes the plug-in files."""
    from rewards import RemotePool, RewardPool

    if config.url is not None:
        token = None if config.token_env is None else carried.secrets[config.token_env]
        return RemotePool(config.url, token, patience_s=config.patience_s, preload=answer_types)
    return RewardPool(
        workers=config.processes,
        timeout_s=config.timeout_s,
        memory_mb=config.memory_mb,
        preload=answer_types,
        plugins={**config.plugins, **_unpack(carried.files, folder)},
        timeouts=config.timeouts,
    )


def _unpack(files: Mapping[str, PluginFile], folder: Path) -> dict[str, str]:
    references = {}
    for number, (name, file) in enumerate(files.items()):
        path = folder / str(number) / file.name  # a folder each: two files may have one name
        path.parent.mkdir(parents=True)
        path.write_bytes(file.source)
        references[name] = str(path) if file.attribute is None else f"{path}:{file.attribute}"
    return references
