"""Broadcast to all workers at once: gloo between hosts, NCCL between GPUs. They differ in device and backend only.

Each version is a round. The learner has a store (TCP), where workers say that they came; it waits for as many as came
to the round before, though not for ever, and writes down who takes part:

    worker     come/<round> += 1, <round>/<n> = id, group that it has
    learner    waits for the entries 0..expected-1, then <round>/plan = group, members
    all        form that group if they are not in it yet; broadcast in buckets

A group stands from round to round for as long as its members are the same. Whoever comes after the plan, as a worker
that replaces another does, is told so and gets the weights another way; it is expected at the next round. A member that
dies or hangs costs the others one time-out at most: they give the group up and fetch the version another way, and the
next round forms a group of those who come.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from rl.config.sync import SyncConfig
from rl.errors import ConfigError, FetchError, first_lines
from rl.sync.base import Ticket, Turns
from rl.sync.bundle import Layout

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """Where a version is broadcast."""

    host: str
    port: int
    number: int


def device_of(backend: str) -> torch.device:
    """Where the buffers of a backend lie.

    Raises:
        ConfigError: NCCL without a GPU.
    """
    if backend == "gloo":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            "sync.transport nccl needs a GPU in the learner and in every rollout worker, and this process sees none; "
            "set learner.gpus_per_rank and rollout.gpus_per_worker, or sync.transport: gloo"
        )
    return torch.device("cuda", torch.cuda.current_device())


class Group:
    """The learner (rank 0) and some workers, connected. Apart from torch's own default group."""

    def __init__(self, backend: str, store: Any, name: str, rank: int, size: int, address: str, timeout: timedelta):
        import torch.distributed as dist

        self.name, self._timeout = name, timeout
        prefixed = dist.PrefixStore(name, store)
        self._group: Any
        if backend == "gloo":
            options: Any = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]  # not in the stubs
            options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
            options._timeout = timeout
            self._group = dist.ProcessGroupGloo(prefixed, rank, size, options)
        else:
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = timeout
            self._group = dist.ProcessGroupNCCL(prefixed, rank, size, options)

    def broadcast(self, buffer: torch.Tensor, bucket: int) -> None:
        """From rank 0 to all others, `bucket` bytes at a time."""
        for part in buffer.split(bucket):
            self._group.broadcast(part, 0).wait(self._timeout)
        if buffer.is_cuda:
            torch.cuda.synchronize(buffer.device)  # NCCL's `wait` orders streams and does not wait

    def close(self) -> None:
        with contextlib.suppress(Exception):  # a group that failed may refuse; nothing is expected of it any more
            self._group.abort()


class GroupSender:
    """See `rl.sync.base.Sender`. Broadcasts on a thread of its own, which ends within the config's time-outs.

    Args:
        host: this node's address, as workers reach it.
        workers: how many are expected at the first round.
    """

    def __init__(self, backend: str, config: SyncConfig, host: str, workers: int) -> None:
        import torch.distributed as dist

        self._backend, self._config, self._host, self._workers = backend, config, host, workers
        self._timeout = timedelta(seconds=config.timeout_s)
        self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=self._timeout)
        self._turns = Turns(2, device_of(backend))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="weights")
        self._busy: list[Future[None]] = []
        self._group: Group | None = None
        self._members: list[str] = []
        self._round, self._closing = 0, False

    def buffer(self, size: int) -> torch.Tensor:
        if len(self._busy) == 2:
            self._busy.pop(0).result()  # the broadcast from the buffer whose turn it is
        return self._turns.next(size)

    def send(self, buffer: torch.Tensor, layout: Layout, version: int) -> Round:
        if buffer.is_cuda:
            torch.cuda.synchronize(buffer.device)  # packed on another stream than that of the broadcast
        self._round += 1
        self._busy.append(self._thread.submit(self._broadcast, self._round, buffer, version))
        return Round(self._host, self._store.port, self._round)

    def close(self) -> None:
        self._closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._drop()

    # ---- on the thread --------------------------------------------------------------------------------------------

    def _broadcast(self, number: int, buffer: torch.Tensor, version: int) -> None:
        try:
            came = self._gather(number)
            if not came:
                return
            if self._group is None or self._members != sorted(came) or {*came.values()} != {self._group.name}:
                self._drop()
                self._members = sorted(came)
                self._plan(number, f"group-{number}")
                self._group = self._join(f"group-{number}")
            else:
                self._plan(number, self._group.name)
            self._group.broadcast(buffer, self._config.bucket_mb << 20)
        except Exception as exc:
            if not self._closing:
                logger.warning("the broadcast of version %d failed: %s", version, first_lines(exc, lines=2))
            self._drop()

    def _gather(self, number: int) -> dict[str, str]:
        """id -> group of those that came in time."""
        expected = self._workers
        if number > 1:
            expected = self._store.add(f"come/{number - 1}", 0) or expected
        with contextlib.suppress(RuntimeError):  # too late: on without them
            keys = [f"{number}/{i}" for i in range(expected)]
            self._store.wait(keys, timedelta(seconds=self._config.join_s))
        came: dict[str, str] = {}
        for entry in self._entries(number):
            came[entry["id"]] = entry["group"]
        if len(came) < expected:
            logger.warning("%d of %d workers came to be sent weights; the others are left out", len(came), expected)
        return came

    def _entries(self, number: int) -> Iterator[dict[str, str]]:
        for i in range(self._store.add(f"come/{number}", 0)):
            if self._store.check([f"{number}/{i}"]):
                yield json.loads(self._store.get(f"{number}/{i}"))

    def _plan(self, number: int, group: str) -> None:
        self._store.set(f"{number}/plan", json.dumps({"group": group, "members": self._members}))

    def _join(self, name: str) -> Group:
        size = len(self._members) + 1
        return Group(self._backend, self._store, name, 0, size, self._host, self._timeout)

    def _drop(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group, self._members = None, []


class GroupReceiver:
    """See `rl.sync.base.Receiver`."""

    def __init__(self, backend: str, config: SyncConfig) -> None:
        self._backend, self._config = backend, config
        self._timeout = timedelta(seconds=config.timeout_s)
        self._turns = Turns(1, device_of(backend))
        self._id = uuid.uuid4().hex
        self._stores: dict[tuple[str, int], Any] = {}
        self._group: Group | None = None

    def receive(self, ticket: Ticket) -> torch.Tensor:
        place: Round = ticket.where
        try:
            buffer = self._turns.next(ticket.layout.size)
            plan, store = self._announce(place)
            if self._id not in plan["members"]:
                raise FetchError(f"the broadcast of version {ticket.version} began without this worker")
            if self._group is None or self._group.name != plan["group"]:
                self._drop()
                rank, size = plan["members"].index(self._id) + 1, len(plan["members"]) + 1
                address = _own_address(place)
                self._group = Group(self._backend, store, plan["group"], rank, size, address, self._timeout)
            self._group.broadcast(buffer, self._config.bucket_mb << 20)
        except FetchError:
            raise
        except (RuntimeError, OSError) as exc:
            self._drop()
            raise FetchError(f"the broadcast of version {ticket.version} failed: {first_lines(exc, lines=2)}") from exc
        return buffer

    def release(self) -> None:
        pass

    def close(self) -> None:
        self._drop()
        self._stores.clear()

    def _announce(self, place: Round) -> tuple[dict[str, Any], Any]:
        import torch.distributed as dist

        where = (place.host, place.port)
        if where not in self._stores:
            self._stores.clear()
            store = dist.TCPStore(*where, is_master=False, timeout=self._timeout)
            self._stores[where] = store
        store = self._stores[where]
        turn = store.add(f"come/{place.number}", 1) - 1
        mine = {"id": self._id, "group": self._group.name if self._group else ""}
        store.set(f"{place.number}/{turn}", json.dumps(mine))
        store.wait([f"{place.number}/plan"], self._timeout)
        return json.loads(store.get(f"{place.number}/plan")), store

    def _drop(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group = None


def _own_address(place: Round) -> str:
    """This host's address on the way to the learner's: others reach it there."""
    with socket.create_connection((place.host, place.port), timeout=10) as connection:
        address: str = connection.getsockname()[0]
        return address
