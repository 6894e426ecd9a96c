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
from typing import Any, Protocol

from rewards import registry
from rewards.base import RewardResult, Status, failed
from rewards.judge import JUDGED, JudgePool
from rewards.mixture.evaluate import POOL, Call, Outcome, Sheet, call_of, evaluate, together, without_recipe
from rewards.mixture.lookup import RecipeBook
from rewards.mixture.scale import RunningScale
from rewards.mixture.settings import AUTO, MixtureConfig, Recipe, Running, VerifierPart, parts_of
from rewards.request import Request
from rewards.settings import SettingsError, load_settings

__all__ = ["Judge", "Mixture", "MixtureConfig", "Pool", "RecipeBook"]


class Judge(Protocol):
    """What is used of a `JudgePool`."""

    def score_many(self, requests: Iterable[Request]) -> list[RewardResult]: ...

    async def ascore_many(self, requests: Iterable[Request]) -> list[RewardResult]: ...


class Pool(Judge, Protocol):
    """What is used of a `RewardPool` or `RemotePool`."""

    @property
    def may_judge(self) -> bool:
        """Whether it may have a judge of its own, for rows that the mixture has no judge for."""
        ...

    def check_names(self, names: Iterable[str]) -> None: ...


class Mixture:
    """Scores requests by the recipes of their tasks, with the interface of `RewardPool`.

    Results have the value of the recipe, normalised for its task. Components: the value of each part that was scored,
    by its name; `raw`, the value before it was normalised; and `outcome`, how right the completion is (see
    `Recipe.outcome`), unless the part that says so failed. A part without a value (timeout, error, unusable gold)
    makes the whole a failure, unless it is optional; so does a task without a recipe. The status is `no_answer` where a
    part found no answer and the value is 0.

    Rows of a judged answer type (`judge`, `caption-qa`) are graded by a plug-in of that name, else by the mixture's
    default judge, else by the pool where that may have a judge.

    Args:
        config: see `MixtureConfig`.
        pool: grades what is not judged; without one it is done in this process, without isolation. Not closed here.
        plugins: further verifiers, as the pool knows them.
        judges: by name, in place of those that would be made by `config.judges`. Not closed here.
    Raises:
        SettingsError: a part names a verifier that is not known, or a judge can't be set up.
    """

    def __init__(
        self,
        config: MixtureConfig,
        *,
        pool: Pool | None = None,
        plugins: Mapping[str, str] | None = None,
        judges: Mapping[str, Judge] | None = None,
    ) -> None:
        self.config = config
        self._plugins = dict(plugins or {})
        self._pool = pool
        self._judged = _judged_lanes(config, self._plugins, pool)
        self._check_verifiers()
        self._book = RecipeBook(config)
        self._scale = RunningScale()
        self._made: list[JudgePool] = []
        self._judges: dict[str, Judge] = dict(judges or {})
        try:
            for name, settings in config.judges.items():
                if name not in self._judges:
                    self._made.append(JudgePool(settings))
                    self._judges[name] = self._made[-1]
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_yaml(
        cls, path: str | Path, *, pool: Pool | None = None, plugins: Mapping[str, str] | None = None
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
            UnknownVerifier: an answer type without a verifier; nothing has been scored then.
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
        calls = [call_of(part, request, self._judged) for request in requests]
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
        """Close the judges that were made here; pool and given judges are their owner's. May be called twice."""
        for judge in self._made:
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
        sheets = [Sheet(request, self._judged) for request in batch]
        steps = [
            without_recipe(self._book.remedy(task)) if recipe is None else evaluate(recipe.reward, sheet)
            for task, recipe, sheet in zip(tasks, recipes, sheets, strict=True)
        ]
        outcomes = yield from together(steps)
        values = self._normalised(tasks, recipes, outcomes, update)
        return [
            failed(outcome.status, outcome.detail)
            if recipe is None or outcome.value is None or value is None
            else _result(sheet, outcome, value, sheet.outcome(recipe.outcome_part, outcome.value))
            for recipe, sheet, outcome, value in zip(recipes, sheets, outcomes, values, strict=True)
        ]

    def _normalised(
        self, tasks: list[str], recipes: list[Recipe | None], outcomes: list[Outcome], update: bool
    ) -> list[float | None]:
        values = [outcome.value for outcome in outcomes]
        by_task: dict[str, tuple[Running, list[int]]] = {}
        for index, (task, recipe) in enumerate(zip(tasks, recipes, strict=True)):
            value = values[index]
            if recipe is None or recipe.normalise is None or value is None:
                continue
            if recipe.normalise.range is not None:
                low, high = recipe.normalise.range
                values[index] = min(max((value - low) / (high - low), 0.0), 1.0)
            elif recipe.normalise.running is not None:
                by_task.setdefault(task, (recipe.normalise.running, []))[1].append(index)
        for task, (running, where) in by_task.items():
            raw = [value for index in where if (value := values[index]) is not None]
            scaled = self._scale.normalise(task, raw, running, update=update)
            for index, value in zip(where, scaled, strict=True):
                values[index] = value
        return values

    def _check_verifiers(self) -> None:
        for where, recipe in self.config.all_recipes():
            for part in parts_of(recipe.reward):
                if not isinstance(part, VerifierPart) or part.verifier == AUTO:
                    continue
                try:
                    if self._pool is not None:
                        self._pool.check_names([part.verifier])
                    else:
                        registry.check_names([part.verifier], self._plugins)
                except ValueError as exc:
                    raise SettingsError(f"{where}, part {part.name}: {exc}") from exc
                if part.verifier in JUDGED and part.verifier not in self._judged:
                    raise SettingsError(
                        f"{where}, part {part.name}: {part.verifier} needs a judge; add one called default to judges"
                    )

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


def _result(sheet: Sheet, outcome: Outcome, value: float, right: float | None) -> RewardResult:
    assert outcome.value is not None
    computed = {"raw": outcome.value} if right is None else {"raw": outcome.value, "outcome": right}
    status: Status = "no_answer" if sheet.no_answer and value == 0.0 else "ok"
    return RewardResult(value, status, sheet.parts | computed, outcome.detail)


def _judged_lanes(config: MixtureConfig, plugins: Mapping[str, str], pool: Pool | None) -> dict[str, str]:
    """Which lane grades the rows of each judged answer type; a type that nothing can grade is left out."""
    lanes = {}
    for name in JUDGED:
        if name in plugins:
            lanes[name] = POOL
        elif config.default_judge is not None:
            lanes[name] = config.default_judge
        elif pool is not None and pool.may_judge:
            lanes[name] = POOL
    return lanes
