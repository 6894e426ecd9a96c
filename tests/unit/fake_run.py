"""Stand-ins for the actors of a run, for tests of `rl.loop` alone; the integration tests have the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from rl.batch.plan import UpdateShare
from rl.config.train import TrainConfig
from rl.data.store import OrderedPrompts, ProfileRequest, PromptSource
from rl.ledger import Ledger
from rl.loop import Loop
from rl.records import GroupMeta
from rl.rollout.worker import PromptTask
from tests.unit.groups import make_group

Rewards = tuple[float | None, ...]


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
        self.meta: Callable[[GroupMeta], GroupMeta] = lambda meta: meta
        self.on_generate: Callable[[PromptTask], Awaitable[None]] = _nothing
        self.on_train: Callable[[int], Awaitable[None]] = _nothing
        self.on_fate: Callable[[dict[str, Any]], None] = lambda row: None
        self.on_push: Callable[[int], Awaitable[None]] = _nothing
        self.probe: Callable[[int], tuple[float, float, int]] = lambda version: (1e-6, 1e-5, version)
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
            SimpleNamespace(generate=self._generate, each=self._each, names=["rollout-0"]),  # type: ignore[arg-type]
            SimpleNamespace(score=self._score),  # type: ignore[arg-type]
            SimpleNamespace(train=self._train),  # type: ignore[arg-type]
            self.prompts or OrderedPrompts(self.ids, seed=0),
            self.ledger,
            SimpleNamespace(  # type: ignore[arg-type]
                start_clock=lambda: None,
                timeline=lambda *args: None,
                rollout_activity=lambda busy, names, step: {},
                step=self._step,
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

    async def _score(self, scoring: PromptTask) -> tuple[Rewards, tuple[str, ...]]:
        values = self.rewards(scoring)
        return values, tuple("timeout" if value is None else "ok" for value in values)

    async def _train(self, shares: list[list[UpdateShare]]) -> tuple[dict[str, float], int, str]:
        version = sum(name == "train" for name in self.names()) + 1
        ages = [version - 1 - group.payload.oldest_version for r in shares for u in r for group in u.groups]
        self.events.append(("train", version, ages))
        self.shares.append(shares)
        await self.on_train(version)
        return {"loss": 0.0, "time/train_start": 0.0, "time/train_end": 1.0}, version, "probe"

    async def _each(self, method: str, *args: Any) -> list[Any]:
        if method == "update_weights":
            await self.on_push(args[0])
            self.engine_version = args[0]
            self.events.append(("push", args[0]))
            return [SimpleNamespace(pause_s=0.25, apply_s=0.125)]
        return [self.probe(self.engine_version)] if method == "probe" else [[]]

    def _fate(self, row: dict[str, Any]) -> None:
        self.fates.append(row)
        self.on_fate(row)

    def _step(self, step: int, row: dict[str, Any], ledger: Ledger) -> None:
        self.events.append(("step", step))
        self.rows.append(row)
        ledger.check()

    async def _evaluate(self, pool: Any, rewards: Any, step: int) -> None:
        self.events.append(("evaluate", step, self.engine_version))

    async def _profile(self, pool: Any, rewards: Any, request: ProfileRequest, step: int) -> dict[str, tuple[int, int]]:
        self.events.append(("profile", step, self.engine_version))
        return {name: (1, request.attempts) for name in request.ids}

    async def _checkpoint(
        self, step: int, learner: Any, rewards: Any, prompts: Any, ledger: Ledger, requeued: Any
    ) -> None:
        self.events.append(("checkpoint", step, self.engine_version))


async def _nothing(_: Any) -> None:
    return None
