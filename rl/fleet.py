"""Actors of one kind that are replaced when they die or hang, while everyone else goes on.

A member is lost when a call to it fails for reasons of its own (its process is gone, its engine can serve nothing
more), when it does not answer a ping, or when its start takes too long. The call then goes to another member, the lost
one is killed for good, and a new actor takes its name once `refit` has brought it up to date: until then it gets no
calls. So a caller sees a slow answer, never half a worker. Where no member has a process any more, a node for one is
waited for as long as a start may take; then the fleet ends.

Members may be added, which start in the same way, and drained: such a one gets no new call and goes when its calls are
answered. Calls that engines queue are held back, first come first served, until a member's queue has room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import ray

from rl.config.faults import FaultConfig
from rl.errors import ActorLostError, ConfigError, EngineDeadError, EngineError, StarvationError, SyncError
from rl.failures import describe_failure, first_line, loss_in, lost_actor, lost_answer
from rl.liveness import answer, answering, has_process, until_ready
from rl.members import Change, Member, describe_outage, least_loaded
from rl.nodes import close_actor
from rl.rollout.engine import EngineLoad
from rl.turns import Turns
from rl.watch import at, waiting

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
"""Members that one call may lose before it is taken for the cause."""
_TRIALS = 2
"""Members that a queued call may lose in company; from then on it is made alone, and so is known for the cause."""


class Fleet:
    """See the module docstring. One event loop, no threads.

    Args:
        spawn: makes an actor; it must have the methods `ready`, `ping` and `close`.
        refit: brings a new actor to the state of the others; no other call reaches it before.
        room: returns an actor's load when its queue has become short; None where nothing queues.
        placed: whether a new actor has a process; only then can its start be too slow.
    """

    def __init__(
        self,
        names: Sequence[str],
        spawn: Callable[[str], Any],
        config: FaultConfig,
        refit: Callable[[Any], Awaitable[None]],
        kill: Callable[[Any], None] = ray.kill,
        room: Callable[[Any], Awaitable[EngineLoad]] | None = None,
        placed: Callable[[Any], bool] = has_process,
    ) -> None:
        self._spawn, self._config, self._refit, self._kill, self._room = spawn, config, refit, kill, room
        self._placed, self.members = placed, [Member(name, spawn(name)) for name in names]
        self._changes: list[Change] = []
        self._turns = Turns(self.members, self._ask)
        self._fatal: BaseException | None = None
        self._hope = time.monotonic()  # when not all members were stranded, as far as was seen last
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.reissued = self.replaced = 0
        """Calls that were made again because their member was lost, and members that were replaced."""

    @property
    def actors(self) -> list[Any]:
        """The actors as they are now, in order of names."""
        return [member.actor for member in self.members]

    @property
    def held(self) -> int:
        """Calls that wait for a member with room."""
        return len(self._turns)

    async def start(self) -> None:
        """Wait for the first actors, then begin to watch them. What keeps all from starting is raised, not repaired."""
        lost = await asyncio.gather(*(loss_in(self._begin(member)) for member in self.members))
        if lost[0] is not None and all(lost):
            raise lost[0]
        for member, cause in zip(self.members, lost, strict=True):
            self._task(self._watch(member))
            if cause is not None:
                self._replace(member, member.actor, cause)
        self._task(self._watch_outage())

    async def _begin(self, member: Member) -> None:
        await member.actor.ready.remote()
        await self._measure(member)

    async def run(self, call: Callable[[Any], Awaitable[Any]], weight: int = 1, queued: bool = False) -> Any:
        """The result of `call(actor)` on the member with the least load; made again elsewhere if that one is lost.

        Args:
            weight: what the call adds to its member's load.
            queued: the call adds `weight` sequences to an engine's queue, and waits here while all queues are long.

        Raises:
            EngineError: every member that got the call was lost, the last with nothing else in hand if it was `queued`,
                so the call itself is, or may be, what kills them.
            EngineError, SyncError, StarvationError, ActorLostError: no member is left, no node for one, or no Ray.
        """
        last: BaseException = EngineDeadError("none")
        for lost in range(_ATTEMPTS):
            alone = queued and lost >= _TRIALS
            member = await self._turn(weight, queued, alone)
            actor = member.actor
            try:
                with at(member.name):
                    result = await call(actor)
            except Exception as exc:
                cause = lost_actor(exc)
                if cause is None:
                    raise
                last = cause
                self._replace(member, actor, cause)
                if alone:
                    break
                self.reissued += 1
            else:
                member.deaths = 0
                return result
            finally:
                self._turns.end(member, weight)
        through = "the last with nothing else in hand" if alone else "perhaps through it; the last"
        raise EngineError(f"{lost + 1} workers were lost with it, {through}: {first_line(last)}")

    async def each(self, call: Callable[[Any], Awaitable[Any]], bare: bool = False) -> dict[str, Any]:
        """Results of `call(actor)` by name, from every member that serves; of at least one.

        Members that are lost on the way are left out, as are those that are being replaced: `refit` sees to them.

        Args:
            bare: nothing is handed to the call; so an object that is gone is an answer, and its member is, too.
        """

        async def ask(name: str, actor: Any) -> Any:
            with at(name):
                return await call(actor)

        while True:
            await self._accepting()
            asked = [(member, member.actor) for member in self.members if member.serving]
            calls = (ask(member.name, actor) for member, actor in asked)
            results = await asyncio.gather(*calls, return_exceptions=True)
            answers = {}
            for (member, actor), result in zip(asked, results, strict=True):
                if not isinstance(result, BaseException):
                    answers[member.name] = result
                elif (cause := lost_actor(result) or (lost_answer(result) if bare else None)) is not None:
                    self._replace(member, actor, cause)
                else:
                    raise result
            if answers:
                return answers

    def drain_changes(self) -> list[Change]:
        """Members replaced, added and drained since the last call."""
        done, self._changes = self._changes, []
        return done

    async def stop(self) -> None:
        """End the watch and the replacements under way; the actors are left as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- adding and draining --------------------------------------------------------------------------------------

    def add(self, name: str) -> None:
        """Start a further member; it serves when it is ready and refitted. Its node may come late if others serve."""
        member = Member(name, self._spawn(name), serving=False, fresh=True)
        self.members.append(member)
        self._task(self._join(member))

    def drain(self, names: Sequence[str], deadline_s: float) -> None:
        """Let members go: no new calls; each is ended when its calls are answered, or after `deadline_s` seconds.

        What one has in hand then is made again elsewhere. A member that does not serve is ended at once.

        Raises:
            ConfigError: a name that no member has; or no member that serves would stay.
        """
        known = {member.name: member for member in self.members if not member.draining}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(f"no worker {', '.join(unknown)} that could be drained; there are: {', '.join(known)}")
        if not any(member.accepts for name, member in known.items() if name not in names):
            raise ConfigError(
                f"with {', '.join(names)} gone no worker would serve; add one first, and drain when it serves"
            )
        for name in dict.fromkeys(names):
            known[name].draining = True
            self._task(self._leave(known[name], deadline_s))

    async def _join(self, member: Member) -> None:
        start = time.time()
        if await self._bring_up(member, None):
            self._changes.append(Change(member.name, start, time.time(), "added", "join"))
            self._task(self._watch(member))

    async def _leave(self, member: Member, deadline_s: float) -> None:
        start = time.time()
        if member.serving and member.load:
            try:
                async with asyncio.timeout(deadline_s):
                    await member.idle.wait()
            except TimeoutError:
                logger.warning(
                    "%s has %d sequences in hand after %g s; they go to others", member.name, member.load, deadline_s
                )
        member.serve(False)
        self.members.remove(member)
        await close_actor(member.actor, self._kill)
        self._changes.append(Change(member.name, start, time.time(), "drained", "drain"))
        logger.warning("%s is gone after %.0f s", member.name, time.time() - start)

    # ---- turns ----------------------------------------------------------------------------------------------------

    async def _accepting(self) -> list[Member]:
        """The members that accept calls, at least one."""
        while True:
            if self._fatal is not None:
                raise self._fatal
            if accepting := [member for member in self.members if member.accepts]:
                return accepting
            async with self._changed:
                await self._changed.wait_for(lambda: self._fatal or any(member.accepts for member in self.members))

    async def _turn(self, weight: int, queued: bool, alone: bool) -> Member:
        """A member to call, with `weight` added to its load; if `queued` one with room, in order of asking."""
        if not queued:
            (member := least_loaded(await self._accepting())).give(weight)
            return member
        if self._fatal is not None:
            raise self._fatal
        return await self._turns.take(weight, alone)

    def _ask(self, member: Member) -> None:
        member.asking = True  # here: many turns may be asked for before the task begins
        self._task(self._relieve(member, member.actor))

    async def _relieve(self, member: Member, actor: Any) -> None:
        """Wait until the member's queue is short, then give turns."""
        try:
            with waiting("room", member.name):
                await self._measure(member)
        except Exception as exc:
            cause = lost_actor(exc)
            if cause is None:
                return await self._end(describe_failure(exc))
            self._replace(member, actor, cause)
        finally:
            member.asking = False
        self._turns.give()

    async def _measure(self, member: Member) -> None:
        if self._room is not None:
            member.queue.asked()
            member.queue.reported(await self._room(member.actor))

    # ---- losing and replacing -------------------------------------------------------------------------------------

    def _replace(self, member: Member, actor: Any, cause: BaseException) -> None:
        if member.actor is not actor or not member.serving:
            return  # another call has noticed before
        if member.draining:
            return member.idle.set()  # it goes anyway
        member.serve(False)
        self._task(self._renew(member, cause))

    async def _renew(self, member: Member, cause: BaseException) -> None:
        start = time.time()
        if await self._bring_up(member, cause):
            self.replaced += 1
            self._changes.append(Change(member.name, start, time.time(), first_line(cause)))
            logger.warning("%s serves again after %.0f s", member.name, time.time() - start)

    async def _bring_up(self, member: Member, cause: BaseException | None) -> bool:
        """Let a member serve whose actor is new, or with a `cause` lost. False if it is given up or drained first."""
        while True:
            if cause is not None:
                with contextlib.suppress(Exception):
                    self._kill(member.actor)
                member.deaths += 1
                if member.deaths > self._config.restarts:
                    await self._give_up(member, cause)
                    return False
                logger.warning("%s is lost and will be replaced: %s", member.name, first_line(cause))
            try:
                if cause is not None:
                    member.actor, member.waits, self._hope = self._spawn(member.name), False, time.monotonic()
                with waiting("start", member.name):
                    await until_ready(member.name, member.actor, self._config, partial(self._sees_process, member))
                member.waits = False
                with waiting("refit", member.name):
                    async with answering(member.name, member.actor, self._config):
                        await self._measure(member)
                        await self._refit(member.actor)
                break
            except Exception as exc:
                if member.draining:
                    return False
                cause = describe_failure(exc)
                # Without Ray nobody comes back; and weights that a fresh engine can't load and no other one serves.
                others = any(other.serving for other in self.members)
                if isinstance(cause, ActorLostError) or (isinstance(cause, SyncError) and not others):
                    await self._end(cause)
                    return False
        if member.draining:
            return False
        # No await between the end of `refit` and this line: what `refit` saw last is still the newest.
        member.serve(True)
        member.fresh = False
        await self._notify()
        return True

    def _sees_process(self, member: Member, actor: Any) -> bool:
        member.waits = not self._placed(actor)
        return not member.waits

    async def _give_up(self, member: Member, cause: BaseException) -> None:
        member.given_up = True
        text = f"{member.name} was lost {member.deaths} times in a row; the last: {cause}"
        if all(other.given_up or other.draining for other in self.members):
            kind = type(cause) if isinstance(cause, EngineError | SyncError) else StarvationError
            return await self._end(kind(f"no worker is left: {text}"))
        logger.error("%s. It is given up; the others go on", text)

    async def _end(self, cause: BaseException) -> None:
        if isinstance(cause, EngineError) and not isinstance(cause, EngineDeadError):
            cause = EngineDeadError(str(cause))  # the other is the fault of a request, and this is of none
        self._fatal = cause
        self._turns.fail(cause)
        await self._notify()

    async def _notify(self) -> None:
        self._turns.give()
        async with self._changed:
            self._changed.notify_all()

    async def _watch(self, member: Member) -> None:
        """Find a member that is gone or hangs even when nobody calls it."""
        while not member.given_up and member in self.members:
            await asyncio.sleep(self._config.ping_every_s)
            actor = member.actor
            if not member.serving:
                continue
            try:
                await answer(member.name, actor, self._config)
            except Exception as exc:
                cause = describe_failure(exc)
                if isinstance(cause, ActorLostError):
                    return await self._end(cause)
                self._replace(member, actor, cause)

    async def _watch_outage(self) -> None:
        """End it when all members are stranded for `start_s`: nothing else bounds their wait for a node."""
        while self._fatal is None:
            await asyncio.sleep(self._config.ping_every_s)
            if not all(member.stranded for member in self.members):
                self._hope = time.monotonic()
            elif time.monotonic() - self._hope >= self._config.start_s:
                await self._end(StarvationError(describe_outage(self.members, self._config.start_s)))

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
