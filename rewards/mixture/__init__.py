"""Mixture of rewards: per task a composition of verifiers, judges, format and length, from one YAML file.

After the mixture of rewards of Intern-S1 (arXiv 2508.15763), which trains on over a thousand tasks at once: each task
has the grader that fits it, and their values are brought to one scale.

    mixture = rewards.Mixture.from_yaml("configs/rewards/science.yaml", pool=RewardPool())
    results = mixture.score_many([Request("<answer>4</answer>", "4", "number", sample={"source": "gsm8k"})])
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rewards import registry
from rewards.base import RewardResult, Status, failed
from rewards.judge import JUDGED, JudgePool
from rewards.mixture.evaluate import POOL, Call, Outcome, Sheet, call_of, evaluate, together
from rewards.mixture.lookup import RecipeBook, UnknownTask
from rewards.mixture.scale import RunningScale
from rewards.mixture.settings import AUTO, MixtureConfig, Recipe, VerifierPart, parts_of
from rewards.request import Request
from rewards.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from rewards.pool import RewardPool
    from rewards.remote import RemotePool

__all__ = ["Mixture", "MixtureConfig", "UnknownTask"]


class Mixture:
    """Scores requests by the recipes of their tasks, with the interface of `RewardPool`.

    Results have the value of the recipe, normalised for its task. Components: the value of each part that was scored,
    by its name, and `raw`, the value before it was normalised. A part without a value (timeout, error, unusable gold)
    makes the whole a failure, unless it is optional. The status is `no_answer` where a part found no answer and the
    value is 0.

    Args:
        config: see `MixtureConfig`.
        pool: grades what is not judged; without one it is done in this process, without isolation. Not closed here.
        plugins: further verifiers, as the pool knows them.
    Raises:
        SettingsError: a part names a verifier that is not known, or a judge can't be set up.
    """

    def __init__(
        self,
        config: MixtureConfig,
        *,
        pool: RewardPool | RemotePool | None = None,
        plugins: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self._plugins = dict(plugins or {})
        _check_verifiers(config, self._plugins)
        self._book = RecipeBook(config)
        self._scale = RunningScale()
        self._pool = pool
        self._judges: dict[str, JudgePool] = {}
        try:
            for name, settings in config.judges.items():
                self._judges[name] = JudgePool(settings)
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_yaml(
        cls, path: str | Path, *, pool: RewardPool | RemotePool | None = None, plugins: Mapping[str, str] | None = None
    ) -> Mixture:
        """A mixture from a file; raises `SettingsError` with the place in it and the nearest known names."""
        return cls(load_settings(MixtureConfig, path), pool=pool, plugins=plugins)

    def score(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str,
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
        update: bool = True,
    ) -> RewardResult:
        """Grade one completion; see `score_many`."""
        return self.score_many([Request(completion, answer, answer_type, prompt, sample)], update=update)[0]

    def score_many(self, requests: Iterable[Request], *, update: bool = True) -> list[RewardResult]:
        """Grade requests; the results are in their order. Blocks the thread: in an event loop use `ascore_many`.

        Args:
            update: False leaves the running statistics of the tasks as they are, for evaluations.
        Raises:
            UnknownTask: a task without a recipe; nothing has been scored then.
            UnknownVerifier: an answer type without a verifier.
        """
        batch = list(requests)
        run = self._rounds(batch, update)
        results: list[RewardResult] | None = None
        try:
            while True:
                calls = next(run) if results is None else run.send(results)
                results = self._scored(calls)
        except StopIteration as done:
            return list(done.value)

    async def ascore(
        self,
        completion: str,
        answer: str | Sequence[str],
        answer_type: str,
        *,
        prompt: str | None = None,
        sample: Mapping[str, Any] | None = None,
        update: bool = True,
    ) -> RewardResult:
        """`score` without blocking the event loop."""
        return (await self.ascore_many([Request(completion, answer, answer_type, prompt, sample)], update=update))[0]

    async def ascore_many(self, requests: Iterable[Request], *, update: bool = True) -> list[RewardResult]:
        """`score_many` without blocking the event loop; pool and judges work at the same time."""
        run = self._rounds(list(requests), update)
        results: list[RewardResult] | None = None
        try:
            while True:
                calls = next(run) if results is None else run.send(results)
                results = await self._ascored(calls)
        except StopIteration as done:
            return list(done.value)

    async def ascore_plain(self, requests: Iterable[Request]) -> list[RewardResult]:
        """Grade by the rows' own answer types alone, as evaluations do: no recipe, no scale, the same judges."""
        part = VerifierPart(name="value", verifier=AUTO)
        calls = [call_of(part, request, self.config.default_judge) for request in requests]
        asked = [call for call in calls if isinstance(call, Call)]
        results = iter(await self._ascored(asked))
        return [next(results) if isinstance(call, Call) else call for call in calls]

    def task_of(self, request: Request) -> str:
        """The name of a request's task."""
        named = (request.sample or {}).get(self.config.task)
        return str(named) if named else request.answer_type

    def state_dict(self) -> dict[str, Any]:
        """The running statistics of all tasks, as plain values that JSON can write."""
        return self._scale.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; raises ValueError for one that is not of a mixture."""
        self._scale.load_state_dict(state)

    def close(self) -> None:
        """Close the judges; the pool is its owner's. May be called twice."""
        for judge in self._judges.values():
            judge.close()

    def __enter__(self) -> Mixture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rounds(
        self, batch: list[Request], update: bool
    ) -> Generator[list[Call], list[RewardResult], list[RewardResult]]:
        """Yields the calls of one round after the other, returns the results of the batch."""
        tasks = [self.task_of(request) for request in batch]
        recipes = [self._book.recipe(task) for task in tasks]
        sheets = [Sheet(request, self.config.default_judge, {}) for request in batch]
        steps = [evaluate(recipe.reward, sheet) for recipe, sheet in zip(recipes, sheets, strict=True)]
        outcomes = yield from together(steps)
        values = self._normalised(tasks, recipes, outcomes, update)
        return [_result(sheet, outcome, value) for sheet, outcome, value in zip(sheets, outcomes, values, strict=True)]

    def _normalised(
        self, tasks: list[str], recipes: list[Recipe], outcomes: list[Outcome], update: bool
    ) -> list[float | None]:
        values = [outcome.value for outcome in outcomes]
        by_task: dict[str, list[int]] = {}
        for index, (task, recipe) in enumerate(zip(tasks, recipes, strict=True)):
            value = values[index]
            if recipe.normalise is None or value is None:
                continue
            if recipe.normalise.range is not None:
                low, high = recipe.normalise.range
                values[index] = min(max((value - low) / (high - low), 0.0), 1.0)
            else:
                by_task.setdefault(task, []).append(index)
        for task, where in by_task.items():
            running = recipes[where[0]].normalise
            assert running is not None and running.running is not None
            raw = [value for index in where if (value := values[index]) is not None]
            scaled = self._scale.normalise(task, raw, running.running, update=update)
            for index, value in zip(where, scaled, strict=True):
                values[index] = value
        return values

    def _scored(self, calls: list[Call]) -> list[RewardResult]:
        results: dict[int, RewardResult] = {}
        for lane, (where, requests) in _by_lane(calls).items():
            if lane != POOL:
                found = self._judges[lane].score_many(requests)
            elif self._pool is not None:
                found = self._pool.score_many(requests)
            else:
                found = [self._in_process(request) for request in requests]
            results.update(zip(where, found, strict=True))
        return [results[index] for index in range(len(calls))]

    async def _ascored(self, calls: list[Call]) -> list[RewardResult]:
        lanes = _by_lane(calls)
        found = await asyncio.gather(*(self._ask_lane(lane, requests) for lane, (_, requests) in lanes.items()))
        results: dict[int, RewardResult] = {}
        for (where, _), part in zip(lanes.values(), found, strict=True):
            results.update(zip(where, part, strict=True))
        return [results[index] for index in range(len(calls))]

    async def _ask_lane(self, lane: str, requests: list[Request]) -> list[RewardResult]:
        if lane != POOL:
            return await self._judges[lane].ascore_many(requests)
        if self._pool is not None:
            return await self._pool.ascore_many(requests)
        return await asyncio.to_thread(lambda: [self._in_process(request) for request in requests])

    def _in_process(self, request: Request) -> RewardResult:
        return registry.score(
            request.completion,
            request.answer,
            request.answer_type,
            prompt=request.prompt,
            sample=request.sample,
            plugins=self._plugins,
        )


def _by_lane(calls: list[Call]) -> dict[str, tuple[list[int], list[Request]]]:
    lanes: dict[str, tuple[list[int], list[Request]]] = {}
    for index, call in enumerate(calls):
        where, requests = lanes.setdefault(call.lane, ([], []))
        where.append(index)
        requests.append(call.request)
    return lanes


def _result(sheet: Sheet, outcome: Outcome, value: float | None) -> RewardResult:
    if outcome.value is None or value is None:
        return failed(outcome.status, outcome.detail)
    parts = {**sheet.parts, "raw": outcome.value}
    status: Status = "no_answer" if sheet.no_answer and value == 0.0 else "ok"
    return RewardResult(value, status, parts, outcome.detail)


def _check_verifiers(config: MixtureConfig, plugins: Mapping[str, str]) -> None:
    for where, recipe in config.all_recipes():
        for part in parts_of(recipe.reward):
            if not isinstance(part, VerifierPart) or part.verifier == AUTO:
                continue
            try:
                registry.check_names([part.verifier], plugins)
            except ValueError as exc:
                raise SettingsError(f"{where}, part {part.name}: {exc}") from exc
            if part.verifier in JUDGED and config.default_judge is None:
                raise SettingsError(
                    f"{where}, part {part.name}: {part.verifier} needs a judge; add one called default to judges"
                )
