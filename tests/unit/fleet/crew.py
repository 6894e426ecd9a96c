"""Stand-ins for the actors of a fleet: they answer, hang and die when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rl.config.faults import FaultConfig
from rl.errors import EngineDeadError
from rl.fleet import Fleet


class Method:
    def __init__(self, work: Callable[..., Any]) -> None:
        self.remote = work


class Worker:
    """An actor whose calls wait until they are answered or it dies."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.dead: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.hangs, self.placed = False, True
        self.starts, self.fits = asyncio.Event(), asyncio.Event()
        """Clear while it hangs in its start, or while it is refitted."""
        self.starts.set()
        self.fits.set()
        self.calls: list[asyncio.Future[Any]] = []
        self.closed = False
        self.ready, self.ping, self.work = Method(self._ready), Method(self._ping), Method(self._work)
        self.close = Method(self._close)

    def die(self, cause: BaseException | None = None) -> None:
        if not self.dead.done():
            self.dead.set_exception(cause or EngineDeadError(f"{self.name} was killed"))
            self.dead.exception()  # seen: not every death has a caller

    async def _ready(self) -> None:
        await self._unless_dead(self.starts.wait())

    async def _ping(self) -> None:
        await self._unless_dead(asyncio.Event().wait() if self.hangs else asyncio.sleep(0))

    async def _close(self) -> None:
        self.closed = True

    async def _work(self) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self.calls.append(answer)
        return await self._unless_dead(answer)

    async def _unless_dead(self, work: Any) -> Any:
        work = asyncio.ensure_future(work)
        await asyncio.wait({work, self.dead}, return_when=asyncio.FIRST_COMPLETED)
        if self.dead.done():
            work.cancel()
            raise self.dead.exception()  # type: ignore[misc]
        return work.result()


class Crew:
    """A fleet of `Worker`s, and all that were ever made."""

    def __init__(self, size: int, **config: Any) -> None:
        self.made: list[Worker] = []
        self.prepare: Callable[[Worker], None] = lambda worker: None
        self.refitted: list[Worker] = []
        self.on_refit: Callable[[Worker], None] = lambda worker: None
        settings = FaultConfig.model_validate({"ping_every_s": 0.01, **config})
        names = [f"w{i}" for i in range(size)]
        self.fleet = Fleet(
            names,
            self._spawn,
            settings,
            self._refit,
            kill=lambda worker: worker.die(),
            placed=lambda worker: worker.placed,
        )

    def _spawn(self, name: str) -> Worker:
        worker = Worker(name, len(self.made))
        self.prepare(worker)
        self.made.append(worker)
        return worker

    async def _refit(self, worker: Worker) -> None:
        self.refitted.append(worker)
        self.on_refit(worker)
        await worker.fits.wait()

    def call(self, weight: int = 1) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self.fleet.run(lambda worker: worker.work.remote(), weight))


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def states(team: Crew) -> dict[str, str]:
    return {member.name: member.state for member in team.fleet.members}
