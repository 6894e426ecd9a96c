"""The learner's end of the weight sync: `WeightSync.publish`, whatever the transport."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rl.config.sync import SyncConfig
from rl.errors import FetchError
from rl.sync.base import Sender, Ticket
from rl.sync.bundle import Layout, layout_of, write
from rl.sync.disk import DiskSender
from rl.sync.group import GroupSender
from rl.sync.object_store import ObjectStoreSender
from rl.sync.shm import ShmSender

_KEPT = 2
"""Versions that can be had again: one is being pushed while the learner makes the next."""


@dataclass(frozen=True, slots=True)
class _Packed:
    version: int
    layout: Layout
    buffer: torch.Tensor
    checksum: str


class WeightSync:
    """Publishes versions by the configured transport, and again by another for workers that this one did not reach.

    `publish` and `reissue` may be called from different threads.

    Args:
        folder: of the files of the transport `disk`, unless the config names one.
        host: this node's address, as workers reach it.
        workers: how many there are at the start.
        spare: for tickets, see `Ticket.spare`; it comes out at `reissue`.
    Raises:
        ConfigError: the transport can't run here.
    """

    def __init__(
        self,
        config: SyncConfig,
        folder: str | Path,
        *,
        host: str = "127.0.0.1",
        workers: int = 1,
        spare: Callable[[int, str], Awaitable[Ticket]] | None = None,
    ) -> None:
        self._config, self._folder, self._host, self._workers = config, config.folder or folder, host, workers
        self._spare = spare
        self._senders: dict[str, Sender] = {}
        self._packed: list[_Packed] = []
        self._again: dict[tuple[int, str], Ticket] = {}
        """Tickets that were reissued: all workers that a version did not reach share one copy."""
        self._lock = threading.Lock()
        self.times: dict[str, float] = {}
        """Seconds of the last `publish`, by part."""
        self._sender(config.transport)

    def publish(self, tensors: Mapping[str, torch.Tensor], version: int) -> Ticket:
        """Make the weights of a version available, under the names of Hugging Face checkpoints.

        Raises:
            SyncError: the transport has no room for them.
        """
        started = time.perf_counter()
        sender, layout = self._sender(self._config.transport), layout_of(tensors)
        buffer = sender.buffer(layout.size)
        with self._lock:  # no reissue reads the buffer from here on
            others = [one for one in self._packed if one.buffer.data_ptr() != buffer.data_ptr()]
            self._packed = others[1 - _KEPT :]  # this version will be the last of those kept
        packed = _Packed(version, layout, buffer, write(tensors, layout, buffer))
        written = time.perf_counter()
        where = sender.send(buffer, layout, version)
        with self._lock:
            self._packed.append(packed)
            kept = {one.version for one in self._packed}
            self._again = {key: ticket for key, ticket in self._again.items() if key[0] in kept}
        self.times = {"pack_s": written - started, "send_s": time.perf_counter() - written}
        return Ticket(version, self._config.transport, layout, packed.checksum, where, self._spare)

    def reissue(self, version: int, transport: str) -> Ticket:
        """A ticket for a version published before, on another transport.

        Raises:
            FetchError: the version has made room for newer ones.
        """
        with self._lock:
            for packed in self._packed:
                if packed.version == version:
                    break
            else:
                kept = [one.version for one in self._packed]
                raise FetchError(f"the learner has the weights of versions {kept} and no more those of {version}")
            if (version, transport) not in self._again:
                where = self._sender(transport).send(packed.buffer.cpu(), packed.layout, version)
                ticket = Ticket(version, transport, packed.layout, packed.checksum, where)
                self._again[version, transport] = ticket
            return self._again[version, transport]

    def close(self) -> None:
        """Free what the transports hold. Workers that read it still may go on."""
        with self._lock:
            self._packed.clear()
            self._again.clear()
            for sender in self._senders.values():
                sender.close()
            self._senders.clear()

    def _sender(self, transport: str) -> Sender:
        if transport not in self._senders:
            self._senders[transport] = self._make(transport)
        return self._senders[transport]

    def _make(self, transport: str) -> Sender:
        makers: dict[str, Callable[[], Any]] = {
            "object_store": ObjectStoreSender,
            "shm": ShmSender,
            "gloo": lambda: GroupSender("gloo", self._config, self._host, self._workers),
            "nccl": lambda: GroupSender("nccl", self._config, self._host, self._workers),
            "disk": lambda: DiskSender(self._folder),
        }
        sender: Sender = makers[transport]()
        return sender
