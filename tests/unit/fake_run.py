"""Stand-ins for the actors of a run, for tests of `rl.loop` alone; the integration tests have the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from rl.batch.packing import CostModel
from rl.batch.plan import UpdateShare
from rl.config.train import TrainConfig
from rl.data.store import OrderedPrompts, ProfileRequest, PromptSource
from rl.errors import GroupsLostError
from rl.ledger import Ledger
from rl.loop import Loop
from rl.records import Grades, GroupMeta
from rl.rollout.engine import EngineLoad, PushTimes
from rl.rollout.worker import PromptTask
from tests.unit.groups import make_group, plain_grades

Rewards = tuple[float | None, ...]
SECONDS = 10.0
"""The longest that a run over fakes may take."""


class FakeRun:
    """A loop over fakes. Tests set the hooks; `events` lists what happened, in order."""

    def __init__(self, out: str, **algo: Any) -> None:
        settings = {"prompts_per_step": 2, "group_size": 2, "max_staleness": 0, **algo}
        self.config = TrainConfig.model_validate(
            {"model": "m", "out": out, "steps": 3, "data": {"train": "d"}, "algo": settings}
        )
        self.events: list[tuple[Any, ...]] = []
        self.fates: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.engine_version = 0
        self.ids = tuple(f"s{i}" for i in range(20))
        self.rewards: Callable[[PromptTask], Rewards] = lambda task: (1.0, 0.0)
        self.grades: Callable[[PromptTask], Grades | None] = lambda task: None
        """In place of `rewards` where it gives some."""
        self.meta: Callable[[GroupMeta], GroupMeta] = lambda meta: meta
        self.on_generate: Callable[[PromptTask], Awaitable[None]] = _nothing
        self.on_train: Callable[[int], Awaitable[None]] = _nothing
        self.on_fate: Callable[[dict[str, Any]], None] = lambda row: None
        self.on_push: Callable[[int], Awaitable[None]] = _nothing
        self.on_evaluate: Callable[[int], Awaitable[None]] = _nothing
        self.on_profile: Callable[[int], Awaitable[None]] = _nothing
        self.on_written: Callable[[int], Awaitable[None]] = _nothing
        self.on_waiting: Callable[[dict[str, int], int, int], None] = lambda reasons, ready, needed: None
        self.probe: Callable[[int], tuple[float, float, int]] = lambda version: (1e-6, 1e-5, version)
        self.lost: Callable[[set[int]], set[int]] = lambda uids: set()
        """Of the admissions of a batch those whose tokens are gone."""
        self.shares: list[list[list[UpdateShare]]] = []
        self.tasks: list[PromptTask] = []
        self.prompts: PromptSource | None = None
        """In place of a plain order."""

    def loop(self, **changes: Any) -> Loop:
        """The loop; `changes` go to the top level of the config."""
        self.config = self.config.model_copy(update=changes)
        self.ledger = Ledger(self._fate)
        self.built = Loop(
            self.config,
            SimpleNamespace(generate=self._generate, push=self._push, each=self._each, fleet=None),  # type: ignore[arg-type]
            SimpleNamespace(score=self._score, fleet=None),  # type: ignore[arg-type]
            SimpleNamespace(train=self._train, cost=CostModel()),  # type: ignore[arg-type]
            self.prompts or OrderedPrompts(self.ids, seed=0),
            self.ledger,
            SimpleNamespace(  # type: ignore[arg-type]
                start_clock=lambda: None,
                timeline=lambda *args: None,
                rollout_activity=lambda busy, step: {},
                lost=lambda count: self.events.append(("lost", count)),
                record=lambda step: None,
                changes=lambda fleets, step: {},
                step=self._step,
                waiting=self._waiting,
                evaluate=self._evaluate,
                checkpoint=self._checkpoint,
                profile=self._profile,
            ),
        )
        return self.built

    def names(self) -> list[str]:
        return [event[0] for event in self.events]

    async def _generate(self, task: PromptTask) -> tuple[GroupMeta, Any, Any]:
        self.tasks.append(task)
        self.events.append(("generate", task.uid, task.sample_id, self.engine_version))
        oldest = self.engine_version
        await asyncio.sleep(0)
        await self.on_generate(task)
        group = make_group(task.uid, (0.0,) * task.n, oldest=oldest, newest=self.engine_version)
        meta = self.meta(replace(group.meta, sample_id=task.sample_id))
        return meta, task, meta

    async def _score(self, scoring: PromptTask, evaluation: bool = False) -> Grades:
        return self.grades(scoring) or plain_grades(self.rewards(scoring))

    async def _train(self, shares: list[list[UpdateShare]], record: str | None) -> tuple[dict[str, float], int, str]:
        version = sum(name == "train" for name in self.names()) + 1
        ages = [version - 1 - group.payload.oldest_version for r in shares for u in r for group in u.groups]
        lost = self.lost({group.uid for rank in shares for update in rank for group in update.groups})
        if lost:
            raise GroupsLostError("gone", frozenset(lost))
        self.events.append(("train", version, ages))
        self.shares.append(shares)
        await self.on_train(version)
        return {"loss": 0.0, "time/train_start": 0.0, "time/train_end": 1.0}, version, "probe"

    async def _push(self, version: int) -> list[Any]:
        await self.on_push(version)
        self.engine_version = version
        self.events.append(("push", version))
        return [PushTimes(pause_s=0.25, apply_s=0.125, fetch_s=0.0625, transport="disk")]

    async def _each(self, method: str, *args: Any) -> dict[str, Any]:
        if method == "abort":
            self.events.append(("abort", *args))
            return {}
        answers = {"probe": self.probe(self.engine_version), "load": EngineLoad(3, 1, 0.5, 4), "busy": []}
        return {"rollout-0": answers[method]}

    def _fate(self, row: dict[str, Any]) -> None:
        self.fates.append(row)
        self.on_fate(row)

    def _step(self, step: int, row: dict[str, Any], ledger: Ledger) -> None:
        self.events.append(("step", step))
        self.rows.append(row)
        ledger.check()
        ledger.mark()

    def _waiting(self, seconds: float, ledger: Ledger, ready: int, needed: int, late: int) -> None:
        self.on_waiting(ledger.since_mark(), ready, needed)

    async def _evaluate(self, pool: Any, rewards: Any, step: int) -> None:
        self.events.append(("evaluate", step, self.engine_version))
        await self.on_evaluate(step)
        self.events.append(("evaluated", step))

    async def _profile(self, pool: Any, rewards: Any, request: ProfileRequest, step: int) -> dict[str, tuple[int, int]]:
        self.events.append(("profile", step, self.engine_version))
        await self.on_profile(step)
        return {name: (1, request.attempts) for name in request.ids}

    async def _checkpoint(self, step: int, *parts: Any) -> Coroutine[Any, Any, None]:
        self.events.append(("checkpoint", step, self.engine_version))
        return self._written(step)

    async def _written(self, step: int) -> None:
        await self.on_written(step)
        self.events.append(("written", step))


async def _nothing(_: Any) -> None:
    return None


async def complete(run: FakeRun, **changes) -> None:
    """Run to the end within the limit, then check the sum of fates, as every run must."""
    loop = run.loop(**changes)
    try:
        await asyncio.wait_for(loop.run(), SECONDS)
    finally:
        run.ledger.finish()
        assert len(run.fates) == run.ledger.admitted
        assert len({row["uid"] for row in run.fates}) == run.ledger.admitted


def fates(run: FakeRun) -> dict[str, int]:
    return {fate: sum(row["fate"] == fate for row in run.fates) for fate in {row["fate"] for row in run.fates}}
