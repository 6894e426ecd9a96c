"""Whether one actor starts, and answers: the limits on waits for it, and the errors when it does not keep them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import ray

from rl.config.faults import FaultConfig, PingConfig
from rl.errors import EngineDeadError, first_lines

logger = logging.getLogger(__name__)

_NOTICE_S = 60.0
"""How often a start that takes long says so."""
_DELIVERY_S = 2.0
"""How long an answer that came while this process was stopped may take to be delivered."""


def has_process(actor: Any) -> bool:
    """Whether Ray has found a place for an actor and made its process: from then on its start is its own work."""
    from ray._private import state  # Ray tells it nowhere else without its dashboard

    return bool(state.actors(actor._actor_id.hex()).get("Pid"))


async def until_ready(name: str, actor: Any, config: FaultConfig, placed: Callable[[Any], bool] = has_process) -> None:
    """Wait until a new actor is ready. Says once a minute that it waits.

    Without a limit until it has a process: a node may have to join first, and others may serve meanwhile; where none
    does, the fleet ends the wait. Then for `start_s` seconds.

    Args:
        placed: whether the actor has a process; called in a thread.
    Raises:
        EngineDeadError: the start takes too long.
        Exception: what the actor's `ready` raised.
    """
    since: float | None = None
    started = said = time.monotonic()
    ready = asyncio.ensure_future(actor.ready.remote())
    try:
        while not (await asyncio.wait({ready}, timeout=config.ping_every_s))[0]:
            now = time.monotonic()
            if since is None and await asyncio.to_thread(placed, actor):
                since = now
            if now - said >= _NOTICE_S:
                said = now
                process = "" if since is not None else ": no process yet, the cluster has no room or no node for it"
                logger.warning("%s is not ready after %.0f s%s", name, now - started, process)
            if since is not None and now - since >= config.start_s:
                raise EngineDeadError(
                    f"{name} was not ready {config.start_s:g} s after it had a process, so it may never be; raise "
                    "faults.start_s of its pool if starts take that long here"
                )
        ready.result()
    finally:
        ready.cancel()


async def answer(name: str, actor: Any, config: PingConfig) -> None:
    """Wait for the answer to a ping.

    Raises:
        EngineDeadError: none came within `hang_s`.
        Exception: what the call raised, of an actor that is gone.
    """
    try:
        await _ping(actor, config.hang_s)
    except TimeoutError as exc:
        raise _silent(name, config) from exc


async def ping_on(name: str, actor: Any, config: PingConfig) -> None:
    """Ping an actor until it does not answer; raises as `answer`.

    One that Ray can't reach for now, as when a network fails for a moment, is asked again until `hang_s` have passed.
    """
    heard = time.monotonic()
    while True:
        await asyncio.sleep(config.ping_every_s)
        try:
            await answer(name, actor, config)
            heard = time.monotonic()
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() - heard >= config.hang_s:
                raise


@contextlib.asynccontextmanager
async def answering(name: str, actor: Any, config: FaultConfig) -> AsyncIterator[None]:
    """Pings the actor beside the block, which is ended when it does not answer, or takes longer than `start_s`.

    A limit on single calls would have to allow for the slowest transport; an actor that hangs shows it sooner. The
    block is no task of its own: no other runs between its end and what comes after.

    Raises:
        EngineDeadError: the actor did not answer, or answered and the block did not get done.
        Exception: what the block raised.
    """
    late = EngineDeadError(
        f"{name} answers, but did not take the state of the run within {config.start_s:g} s; raise faults.start_s of "
        "its pool if that takes so long here"
    )
    silent = False

    async def ping() -> None:
        nonlocal silent
        with contextlib.suppress(Exception):  # one that is gone fails the block's own calls, and they know best why
            while True:
                await asyncio.sleep(config.ping_every_s)
                try:
                    await _ping(actor, config.hang_s)
                except TimeoutError:
                    silent = True
                    limit.reschedule(asyncio.get_running_loop().time())
                    return

    try:
        async with asyncio.timeout(config.start_s) as limit:
            pinging = asyncio.create_task(ping())
            try:
                yield
            finally:
                pinging.cancel()
    except TimeoutError as exc:
        if limit.expired():
            raise (_silent(name, config) if silent else late) from exc
        raise


async def keep_alive(
    name: str,
    actor: Any,
    config: FaultConfig,
    kill: Callable[[Any], None] = lambda actor: ray.kill(actor, no_restart=False),
) -> None:
    """Kill an actor that Ray itself restarts whenever it hangs, so that a hang is as good as a death; until cancelled.

    Calls that it had in hand fail or are made again, as Ray was told when it was made.
    """
    while True:
        try:
            await until_ready(name, actor, config, placed=lambda _: True)
            await ping_on(name, actor, config)
        except EngineDeadError as exc:
            logger.warning("%s; it is killed, and Ray starts it anew", exc)
            kill(actor)
        except ray.exceptions.RayActorError as exc:
            logger.warning("%s is gone, and Ray starts it anew: %s", name, first_lines(exc, lines=1))
        await asyncio.sleep(config.ping_every_s)


async def _ping(actor: Any, limit_s: float) -> None:
    # Not `wait_for`, which in Python 3.11 loses a cancellation that comes with the answer.
    ping = asyncio.ensure_future(actor.ping.remote())
    try:
        # Where this process itself was stopped, the end of the limit and the answer are there together.
        for limit in (limit_s, min(limit_s, _DELIVERY_S)):
            if (await asyncio.wait({ping}, timeout=limit))[0]:
                return ping.result()
        raise TimeoutError
    finally:
        ping.cancel()


def _silent(name: str, config: PingConfig) -> EngineDeadError:
    return EngineDeadError(f"{name} did not answer for {config.hang_s:g} s")
