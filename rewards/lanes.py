"""The threads of a pool that hand requests to worker processes and wait for the results.

    queue -> lane -> worker -> result
               |-> late:             the worker is killed, the request ends as `timeout`
               '-> slow:             what was sent behind the request goes back to the queue, for other lanes
                     '-> asleep:     its worker is parked, and the lane goes on with another

A lane takes a few requests from the queue, sends them in one message and waits for each result in turn. Nothing here
needs the main thread, signals or an event loop, so that it works in a Ray actor as well.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from rewards import vitals
from rewards.base import RewardResult, failed
from rewards.parking import Parked, Parking
from rewards.refusals import Refusals
from rewards.worker import PoolError, Template, Worker, describe_exit

MAX_BATCH = 32
MAX_BATCH_BYTES = 4 * 2**20
PATIENCE_S = 0.02
"""A request that takes longer is slow."""
LOOK_S = 0.01
"""Between the first two looks at whether it sleeps; the others are further and further apart."""
SETTLE_S = 0.1
"""How long a worker may take to leave what is recalled from it."""
CLOSED = "the reward pool was closed before the request was graded"


@dataclass(slots=True, eq=False)
class Call:
    """One call of `score_many`: its results so far, and the future that its caller waits for."""

    results: list[RewardResult | None]
    left: int
    future: Future[list[RewardResult]] = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def finish(self, position: int, result: RewardResult) -> None:
        with self.lock:
            self.results[position] = result
            self.left -= 1
            done = self.left == 0
        if done:
            with contextlib.suppress(InvalidStateError):  # the caller has cancelled
                self.future.set_result([item for item in self.results if item is not None])


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One packed request of a call."""

    call: Call
    position: int
    payload: bytes
    timeout_s: float
    may_park: bool
    """Whether its worker leaves its core to another one while it sleeps."""

    def finish(self, result: RewardResult) -> None:
        self.call.finish(self.position, result)

    def fail(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.call.future.set_exception(error)

    def late(self) -> RewardResult:
        return failed("timeout", f"not graded within {self.timeout_s:g} s")


class Lanes:
    """`count` threads with a worker each, and room for `sleepers` parked workers."""

    def __init__(self, template: Template, count: int, sleepers: int, refusals: Refusals) -> None:
        self._template = template
        self._count = count
        self._refusals = refusals
        self._queue: deque[Item] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._broken: PoolError | None = None
        self._live: set[Worker] = set()
        self._spare: list[Worker] = []
        self._parking: Parking[Item] = Parking(sleepers, self._unpark)
        self._threads = [threading.Thread(target=self._run, daemon=True, name="reward-lane") for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def put(self, items: Sequence[Item]) -> None:
        """
        Raises:
            PoolError: closed, or no worker can be started any more.
        """
        with self._ready:
            if self._closing:
                raise PoolError("the reward pool is closed; make a new one")
            if self._broken is not None:
                raise self._broken
            self._queue.extend(items)
            self._ready.notify(len(items))

    def close(self) -> None:
        """End all workers and wait for the threads; what is not graded fails with `PoolError`."""
        with self._ready:
            if self._closing:
                return
            self._closing = True
            waiting, live = list(self._queue), list(self._live)
            self._queue.clear()
            self._ready.notify_all()
        for item in waiting:
            item.fail(PoolError(CLOSED))
        for worker in live:
            worker.kill()  # wakes the lane that waits for it
        for thread in self._threads:
            thread.join()
        for parked in self._parking.close():
            parked.item.fail(PoolError(CLOSED))
            self._drop(parked.worker)
        for worker in self._spare:
            self._drop(worker)

    def _run(self) -> None:
        worker: Worker | None = None
        batch: list[Item] = []
        try:
            worker = self._new_worker()
            while batch := self._take():
                worker = self._serve(worker, batch)
        except PoolError as error:
            self._break(error, batch)
        except Exception as exc:  # a bug of ours: callers must get an exception, not wait for ever
            self._break(PoolError(f"a lane of the reward pool failed: {type(exc).__name__}: {exc}"), batch)
        finally:
            if worker is not None:
                self._drop(worker)

    def _take(self) -> list[Item]:
        """The next requests for a lane, a fair share of the queue; empty when the pool closes."""
        batch: list[Item] = []
        while not batch:
            size = 0
            with self._ready:
                while not self._queue and not self._closing:
                    self._ready.wait()
                if self._closing:
                    return []
                share = min(MAX_BATCH, 1 + len(self._queue) // (2 * self._count))
                while self._queue and len(batch) < share and (not batch or size < MAX_BATCH_BYTES):
                    item = self._queue.popleft()
                    if not item.call.future.cancelled():
                        batch.append(item)
                        size += len(item.payload)
            batch = [item for item in batch if not self._refuse(item)]
        return batch

    def _refuse(self, item: Item) -> bool:
        """End a request that has lately run into its deadline."""
        known = self._refusals.find(item.payload)
        if known is not None:
            item.finish(known)
        return known is not None

    def _serve(self, worker: Worker, batch: list[Item]) -> Worker:
        """Have a batch graded; returns the worker to go on with."""
        try:
            numbers = worker.send([item.payload for item in batch])
        except OSError:
            # It died or was stopped while idle, which no request has caused: all of them go to its successor.
            self._put_back(batch)
            return self._replace(worker)[0]
        for position, item in enumerate(batch):
            try:
                result = worker.receive(numbers[position], min(PATIENCE_S, item.timeout_s))
            except (EOFError, ValueError) as exc:
                self._put_back(batch[position + 1 :])
                return self._end(worker, item, exc)
            if result is None:
                return self._serve_slow(worker, numbers[position], item, batch[position + 1 :])
            item.finish(result)
        return worker

    def _serve_slow(self, worker: Worker, number: int, item: Item, behind: list[Item]) -> Worker:
        """Go on with a request that is slow; those behind it are for whoever is free."""
        deadline = time.monotonic() + max(0.0, item.timeout_s - PATIENCE_S)
        first = last = vitals.look(worker.pid)
        pause = LOOK_S
        self._put_back(behind)
        try:
            recalled = worker.recall(number) if behind else None
            while (result := worker.receive(number, min(pause, _left(deadline)))) is None and _left(deadline):
                before, last = last, vitals.look(worker.pid)
                if item.may_park and vitals.slept(before, last):
                    successor = self._park(Parked(worker, number, recalled, item, deadline))
                    if successor is not None:
                        return successor
                pause *= 2
        except (OSError, EOFError, ValueError) as exc:
            return self._end(worker, item, exc)
        if result is None:
            if vitals.hung(first, vitals.look(worker.pid)):
                self._refusals.add(item.payload, item.late())
            item.finish(item.late())
            return self._replace(worker)[0]
        item.finish(result)
        return worker if _is_free(worker, recalled) else self._replace(worker)[0]

    def _park(self, parked: Parked[Item]) -> Worker | None:
        """Leave a worker to the thread that waits for those asleep; another one, or None where there is no room."""
        if not self._parking.has_room():
            return None
        successor = self._new_worker()
        if self._parking.take(parked):
            return successor
        self._set_aside(successor)
        return None

    def _unpark(self, parked: Parked[Item]) -> None:
        """Finish the request of a parked worker that has answered or died, or whose deadline has passed."""
        worker, item = parked.worker, parked.item
        try:
            result = worker.receive(parked.number, 0.0)
        except (EOFError, ValueError) as exc:
            code = self._drop(worker)
            if self._closing:
                item.fail(PoolError(CLOSED))
            else:
                item.finish(_ended(exc, code))
            return
        if result is None:
            self._refusals.add(item.payload, item.late())
        item.finish(item.late() if result is None else result)
        if result is not None and _is_free(worker, parked.recalled):
            self._set_aside(worker)
        else:
            self._drop(worker)

    def _end(self, worker: Worker, item: Item, reason: Exception) -> Worker:
        """End a request over which its worker died, or after which it can't be trusted; returns another worker."""
        successor, code = self._replace(worker)
        item.finish(_ended(reason, code))
        return successor

    def _put_back(self, items: Sequence[Item]) -> None:
        """To the front of the queue."""
        with self._ready:
            closing = self._closing
            if not closing:
                self._queue.extendleft(reversed(items))
                self._ready.notify(len(items))
        if closing:
            for item in items:
                item.fail(PoolError(CLOSED))

    def _replace(self, worker: Worker) -> tuple[Worker, int | None]:
        """Kill a worker; another one, and the exit code of the first.

        Raises:
            PoolError: the pool is being closed, or can't start a worker any more.
        """
        if self._closing:
            raise PoolError(CLOSED)
        code = self._drop(worker)
        return self._new_worker(), code

    def _new_worker(self) -> Worker:
        with self._ready:
            if self._spare:
                return self._spare.pop()
        worker = self._template.fork()
        with self._ready:
            self._live.add(worker)
            closing = self._closing
        if closing:
            self._drop(worker)
            raise PoolError("the reward pool is closed")
        return worker

    def _set_aside(self, worker: Worker) -> None:
        """Keep a worker that nobody needs now for the next one who does."""
        with self._ready:
            keep = not self._closing and len(self._spare) < self._count
            if keep:
                self._spare.append(worker)
        if not keep:
            self._drop(worker)

    def _drop(self, worker: Worker) -> int | None:
        with self._ready:
            self._live.discard(worker)
        return self._template.reap(worker)

    def _break(self, error: PoolError, batch: list[Item]) -> None:
        """A lane can't go on: fail what it held and what waits, and refuse what comes."""
        with self._ready:
            if not self._closing:
                self._broken = error
            waiting = list(self._queue)
            self._queue.clear()
        for item in [*batch, *waiting]:
            item.fail(error)


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _is_free(worker: Worker, recalled: int | None) -> bool:
    """Whether a worker has left what was recalled from it, if anything was."""
    return recalled is None or worker.settle(recalled, SETTLE_S)


def _ended(reason: Exception, code: int | None) -> RewardResult:
    if isinstance(reason, ValueError):  # not this one's result: a verifier, or a fork of it, wrote into the socket
        return failed("error", f"the worker's reply can't be used: {reason!s:.200}")
    return failed("error", f"the worker died on this request ({describe_exit(code)})")
