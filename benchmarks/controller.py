"""How many groups a second can the driver feed, and what does its cost grow with?

Runs the real loop, ledger and trackers over engines, graders and a learner that answer at once: first as coroutines of
the driver, which leaves the driver's own work, then as Ray actors behind the admission of real runs, which adds the
remote calls; `--workers` is the number of rollout workers and of graders, which all share this machine. Groups admitted
at once are varied by the capacity B * (S + 1), so that the largest case has hundreds of thousands of requests waiting:
at coroutines all of them, over Ray those that admission lets through to engines of SLOTS sequences, and the others in
the driver. A group counts when it is finished and scored, which is before it is trained.

    python benchmarks/controller.py [--groups 20000] [--workers 1 2 8]

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray

from rl.batch.plan import UpdateShare
from rl.config.faults import FaultConfig
from rl.config.train import TrainConfig
from rl.data.store import OrderedPrompts
from rl.fleet import Fleet
from rl.ledger import Ledger
from rl.loop import Loop
from rl.mail import Columns, Desk, Mail, Part
from rl.metrics.environment import environment
from rl.metrics.tracker import Tracker
from rl.records import Grades, GroupMeta
from rl.rollout.engine import EngineLoad, PushTimes
from rl.rollout.worker import PromptTask, RoomTask

GROUP, STALENESS, SLOTS = 16, 3, 256
CAPACITIES = (64, 1024, 16384)
"""Groups admitted and not yet trained; each waits for GROUP completions."""


def meta(task: PromptTask, version: int) -> GroupMeta:
    return GroupMeta(
        uid=task.uid,
        sample_id=task.sample_id,
        source="made",
        lengths=(100,) * task.n,
        prompt_length=100,
        finish_reasons=("stop",) * task.n,
        oldest_version=version,
        newest_version=version,
        worker="rollout-0",
        started_s=0.0,
        finished_s=0.0,
    )


VALUES = ((1.0, 0.0) * GROUP)[:GROUP]
GRADES = Grades(
    rewards=VALUES,
    raw=VALUES,
    outcomes=VALUES,
    statuses=("ok",) * GROUP,
    components=tuple({"accuracy": value} for value in VALUES),
)


SCORING = bytes(GROUP * 300)
TOKENS = bytes(GROUP * 100 * 8)
"""As large as texts, and tokens with logprobs, of 100 tokens a completion."""


class Worker:
    """A rollout worker, a reward worker or both, that answers at once."""

    def __init__(self) -> None:
        self.version = 0
        self.desk = Desk(self.generate, parts=2)

    async def ready(self) -> None: ...

    async def ping(self) -> None: ...

    async def set_version(self, version: int) -> None:
        self.version = version

    async def generate(self, task: PromptTask | RoomTask) -> tuple[Any, Any, Any]:
        if isinstance(task, RoomTask):
            return EngineLoad(slots=SLOTS), None, None
        return meta(task, self.version), SCORING, TOKENS

    async def score(self, scoring: Any, evaluation: bool = False) -> Any:
        return GRADES

    async def take(self, questions: list[Any]) -> None:
        await self.desk.take(questions)

    async def collect(self) -> Any:
        return await self.desk.collect()


class Grader(Worker):
    """The worker that grades."""

    def __init__(self) -> None:
        super().__init__()
        self.desk, self.columns = Desk(self._grade), Columns()

    async def _grade(self, question: tuple[Part, bool]) -> Any:
        scoring, evaluation = question
        assert len(await self.columns.fetch(scoring)) == len(SCORING)
        return await self.score(scoring, evaluation)


class Local:
    """The worker as a coroutine of the driver."""

    scored = 0

    def __init__(self) -> None:
        self.worker = Worker()

    async def start(self) -> None: ...

    async def generate(self, task: PromptTask) -> Any:
        return await self.worker.generate(task)

    async def score(self, scoring: Any, evaluation: bool = False) -> Any:
        self.scored += 1
        return await self.worker.score(scoring)

    async def push(self, version: int) -> list[Any]:
        await self.worker.set_version(version)
        return [PushTimes(pause_s=0.0, apply_s=0.0)]

    async def stop(self) -> None: ...


class Remote(Local):
    """Workers as Ray actors behind fleets, as in `rl.cluster`."""

    def __init__(self, workers: int) -> None:
        actors = {
            kind: ray.remote(each).options(num_cpus=0, max_concurrency=4096)  # type: ignore[call-overload]
            for kind, each in (("rollout", Worker), ("reward", Grader))
        }
        faults, self.mail = FaultConfig(), (Mail(parts=2), Mail())

        async def refit(_: Any) -> None: ...

        async def room(actor: Any) -> EngineLoad:
            load: EngineLoad
            load, *_ = await self.mail[0].to(actor).ask(RoomTask())
            return load

        self.rollout, self.rewards = (
            Fleet(
                [f"{kind}-{i}" for i in range(workers)],
                lambda name, actor=actor: actor.remote(),
                faults,
                refit,
                room=room if kind == "rollout" else None,
            )
            for kind, actor in actors.items()
        )

    async def start(self) -> None:
        await asyncio.gather(self.rollout.start(), self.rewards.start())

    async def generate(self, task: PromptTask) -> Any:
        return await self.rollout.run(lambda actor: self.mail[0].to(actor).ask(task), weight=task.n, queued=True)

    async def score(self, scoring: Any, evaluation: bool = False) -> Any:
        self.scored += 1
        return await self.rewards.run(lambda actor: self.mail[1].to(actor).ask((scoring, evaluation)))

    async def push(self, version: int) -> list[Any]:
        await self.rollout.each(lambda actor: actor.set_version.remote(version))
        return [PushTimes(pause_s=0.0, apply_s=0.0)]

    async def stop(self) -> None:
        for fleet in (self.rollout, self.rewards):
            await fleet.stop()
            for actor in fleet.actors:
                ray.kill(actor)


async def measure(parts: Local, capacity: int, groups: int) -> dict[str, float]:
    """Groups per second of wall time and of the driver's processor time, from the first admission to the last step."""
    size = capacity // (STALENESS + 1)
    steps = max(3, groups // size)
    with tempfile.TemporaryDirectory() as out:
        algo = {"prompts_per_step": size, "group_size": GROUP, "max_staleness": STALENESS}
        config = TrainConfig.model_validate(
            {"model": "m", "out": out, "steps": steps, "data": {"train": "d"}, "algo": algo}
        )
        tracker = Tracker(Path(out))
        ledger = Ledger(tracker.fate)
        await parts.start()
        pool = SimpleNamespace(generate=parts.generate, push=parts.push, each=each_of(parts), fleet=None)
        learner, rewards = (
            SimpleNamespace(train=learner_that_is_done(), cost=None),
            SimpleNamespace(score=parts.score, fleet=None),
        )
        prompts = OrderedPrompts(tuple(f"s{i}" for i in range(100_000)), seed=0)
        loop = Loop(config, pool, rewards, learner, prompts, ledger, recorder(tracker))  # type: ignore[arg-type]
        parts.scored = 0
        wall, cpu = time.perf_counter(), processor_seconds()
        await loop.run()
        wall, cpu = time.perf_counter() - wall, processor_seconds() - cpu
        tracker.close()
        await parts.stop()
    done = parts.scored
    return {
        "groups_admitted": capacity,
        "requests_admitted": capacity * GROUP,
        "groups_per_s": round(done / wall),
        "groups_per_driver_cpu_s": round(done / cpu),
    }


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def learner_that_is_done() -> Callable[[list[list[UpdateShare]]], Coroutine[Any, Any, Any]]:
    versions = itertools.count(1)

    async def train(shares: list[list[UpdateShare]], record: str | None) -> Any:
        return {"loss": 0.0, "time/train_start": 0.0, "time/train_end": 0.0}, next(versions), "probe"

    return train


def each_of(parts: Local) -> Callable[..., Coroutine[Any, Any, dict[str, Any]]]:
    seen = itertools.count(1)

    async def each(method: str, *args: Any) -> dict[str, Any]:
        if method == "load":
            return {"rollout-0": EngineLoad()}
        return {"rollout-0": (0.0, 0.0, next(seen)) if method == "probe" else []}

    return each


def recorder(tracker: Tracker) -> Any:
    """A `RunIO` that only writes rows."""
    return SimpleNamespace(
        start_clock=lambda: None,
        timeline=lambda *args: None,
        rollout_activity=lambda busy, step: {},
        record=lambda step: None,
        lost=lambda count: None,
        changes=lambda fleets, step: {},
        waiting=lambda *args: None,
        step=lambda step, row, ledger: (tracker.log(step, row), ledger.check()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=20_000, help="groups per measurement, at least three steps")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 8])
    args = parser.parse_args()
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"
    found: dict[str, Any] = {"loop alone": [asyncio.run(measure(Local(), c, args.groups)) for c in CAPACITIES]}
    print("loop alone", found["loop alone"], flush=True)
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    for workers in args.workers:
        rows = [asyncio.run(_with_actors(workers, capacity, args.groups)) for capacity in CAPACITIES]
        found[f"{workers} Ray workers"] = rows
        print(workers, rows, flush=True)
    ray.shutdown()
    print(json.dumps({"benchmark": "controller", "group_size": GROUP, **found, "environment": environment()}))


async def _with_actors(workers: int, capacity: int, groups: int) -> dict[str, float]:
    return await measure(Remote(workers), capacity, groups)


if __name__ == "__main__":
    main()
