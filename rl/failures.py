"""What a failed remote call means: whose fault it is, and what of it a caller acts on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

import ray

from rl.errors import (
    ActorLostError,
    DataError,
    EndpointUnavailable,
    EngineDeadError,
    EngineError,
    FetchError,
    SyncError,
    first_lines,
)
from rl.watch import at

_DEATH_S = 10.0
"""How long a learner rank's error waits for the death of another that may be behind it."""


def first_line(exc: BaseException) -> str:
    """The beginning of what an exception says, in one line; its type where it says nothing."""
    return first_lines(exc, lines=1, chars=300)


async def of_ranks(calls: Sequence[Awaitable[Any]], limit_s: float | None = None) -> list[Any]:
    """What each learner rank returns.

    Raises:
        ActorLostError: a rank died; it is named, though its peers may have noticed a broken connection before. Or one
            has not answered for `limit_s` seconds.
        Exception: whatever else a rank raised.
    """
    tasks = [asyncio.ensure_future(_of_rank(rank, call)) for rank, call in enumerate(calls)]
    try:
        done, pending = await asyncio.wait(tasks, timeout=limit_s, return_when=asyncio.FIRST_EXCEPTION)
        if pending and all(task.exception() is None for task in done):
            silent = ", ".join(str(rank) for rank, task in enumerate(tasks) if task in pending)
            raise ActorLostError(
                f"learner rank {silent} has not answered for {limit_s:g} s: it hangs, or what it was asked for takes "
                "that long here; then raise stall_timeout_s"
            )
        if pending and not any(isinstance(task.exception(), ray.exceptions.RayActorError) for task in done):
            await asyncio.wait(pending, timeout=_DEATH_S)
        failed = {rank: task.exception() for rank, task in enumerate(tasks) if task.done() and task.exception()}
        for rank, exc in failed.items():
            if isinstance(exc, ray.exceptions.RayActorError):
                raise lost_rank(rank, exc) from exc
        for exc in failed.values():
            assert exc is not None
            raise exc
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


async def _of_rank(rank: int, call: Awaitable[Any]) -> Any:
    with at(f"rank {rank}"):
        return await call


def lost_rank(rank: int, exc: BaseException) -> ActorLostError:
    """What Ray's error of a rank that is gone comes to."""
    gone = describe_failure(exc)
    return gone if isinstance(gone, ActorLostError) else ActorLostError(f"learner rank {rank} died ({_death(exc)})")


def _death(exc: BaseException) -> str:
    """Ray's last line names the cause; the ones before it are ids."""
    return (str(exc).strip().splitlines() or [type(exc).__name__])[-1].strip()[:300]


def object_lost(exc: BaseException) -> bool:
    """Whether an object is gone with the node that held it: what was handed to a call, or what one returned."""
    return isinstance(exc, ray.exceptions.ObjectLostError) or isinstance(
        describe_failure(exc), ray.exceptions.ObjectLostError
    )


def lost_actor(exc: BaseException) -> BaseException | None:
    """The cause if the actor that was called can serve nothing more, else None."""
    cause = describe_failure(exc)
    return cause if isinstance(cause, EngineDeadError | SyncError | FetchError) else None


async def loss_in(work: Awaitable[Any]) -> BaseException | None:
    """The cause if what is awaited fails for the loss of an actor; None if it is done. Other failures are raised."""
    try:
        await work
    except Exception as exc:
        if (cause := lost_actor(exc)) is None:
            raise
        return cause
    return None


def lost_answer(exc: BaseException) -> BaseException | None:
    """The cause if the answer to a call without arguments is gone with the actor's node, else None."""
    return EngineDeadError(f"its node died with its answer: {first_line(exc)}") if object_lost(exc) else None


def failed_prompt(exc: BaseException) -> BaseException | None:
    """The remote cause if only one prompt failed, which is data; None if a part of the system did, which ends a run."""
    cause = describe_failure(exc)
    whole = isinstance(cause, EngineDeadError | EndpointUnavailable)
    return cause if isinstance(cause, DataError | EngineError) and not whole else None


@contextlib.contextmanager
def remote_causes() -> Iterator[None]:
    """A failure inside raises its remote cause in place of Ray's wrapper."""
    try:
        yield
    except Exception as exc:
        cause = describe_failure(exc)
        if cause is exc:
            raise
        raise cause from exc


def describe_failure(exc: BaseException) -> BaseException:
    """The remote cause of a Ray task error, EngineDeadError for a dead actor, or ActorLostError for a dead Ray."""
    if isinstance(exc, ray.exceptions.RayTaskError):
        cause = exc.cause if isinstance(getattr(exc, "cause", None), BaseException) else None
        return cause or exc
    if isinstance(exc, ray.exceptions.LocalRayletDiedError) or (
        # The owner of every actor is this process, which lives: what is gone is its node, as Ray sees it.
        isinstance(exc, ray.exceptions.RayActorError) and "its owner has died" in str(exc)
    ):
        return ActorLostError(f"Ray on this machine is gone, its raylet killed or crashed ({_death(exc)})")
    if isinstance(exc, ray.exceptions.RayActorError):
        return EngineDeadError(f"a worker died: {exc}")
    return exc
