"""Tickets, and what becomes of a worker that the configured transport does not reach."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from dataclasses import replace

import pytest
import torch

from rl.config.base import parse_config
from rl.config.sync import SyncConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError, FetchError
from rl.sync.base import Ticket
from rl.sync.learner import WeightSync
from rl.sync.worker import WeightReceiver
from tests.unit.sync.weights import assert_version, fetch, weights

LOCAL = ("shm", "disk")
"""Transports that need neither Ray nor other processes."""


class Learner:
    """Reissues from disk as a learner would; has no object store."""

    def __init__(self, transport: str, folder) -> None:
        self.asked: list[tuple[int, str]] = []
        self.sync = WeightSync(SyncConfig(transport=transport), folder, spare=self._spare)  # type: ignore[arg-type]

    async def _spare(self, version: int, transport: str) -> Ticket:
        self.asked.append((version, transport))
        if transport == "object_store":
            raise FetchError("no Ray here")
        return self.sync.reissue(version, transport)


@pytest.mark.parametrize("transport", LOCAL)
async def test_a_ticket_is_small_and_can_be_pickled(tmp_path, transport):
    sync = WeightSync(SyncConfig(transport=transport), tmp_path)
    ticket = pickle.loads(pickle.dumps(sync.publish(weights(3, size=100_000), 3)))
    assert len(pickle.dumps(ticket)) < 2000 < ticket.layout.size
    assert (ticket.version, ticket.transport, ticket.layout.names) == (3, transport, ("a", "b.c"))
    assert_version(await fetch(ticket), 3)
    sync.close()


async def test_the_checksum_is_of_the_weights_and_not_of_the_transport(tmp_path):
    tickets = [
        WeightSync(SyncConfig(transport=t), tmp_path).publish({"x": torch.arange(17.0), "y": torch.ones(3)}, 1)
        for t in LOCAL
    ]
    assert tickets[0].checksum == tickets[1].checksum


@pytest.mark.parametrize(("setting", "kept"), [("recompute", False), ("keep", True)])
async def test_the_bundle_says_what_becomes_of_keys_and_values(tmp_path, setting, kept):
    ticket = WeightSync(SyncConfig(transport="shm"), tmp_path).publish(weights(1), 1)
    async with WeightReceiver(SyncConfig(kv_cache=setting)).fetched(ticket) as bundle:
        assert bundle.keep_cache is kept and bundle.checksum == ticket.checksum


async def test_a_worker_on_another_host_gets_the_same_weights_from_disk(tmp_path, caplog):
    learner = Learner("shm", tmp_path)
    ticket = learner.sync.publish(weights(4), 4)
    elsewhere = replace(ticket, where=replace(ticket.where, host="another"))
    receiver = WeightReceiver(SyncConfig(transport="shm"))
    with caplog.at_level(logging.WARNING):
        assert_version(await fetch(elsewhere, receiver), 4)
    assert learner.asked == [(4, "object_store"), (4, "disk")] and receiver.transport == "disk"
    assert "version 4 did not come by shm: the learner's shared memory is on another host" in caplog.text
    assert "version 4 did not come by object_store: no Ray here" in caplog.text
    assert_version(await fetch(ticket, receiver), 4)
    assert receiver.transport == "shm", "the next push tries the configured one again"


async def test_every_way_fails(tmp_path):
    learner = Learner("shm", tmp_path)
    tickets = [learner.sync.publish(weights(version), version) for version in (1, 2, 3)]
    with pytest.raises(
        FetchError,
        match=r"version 1 can't be had\. shm: .*gone.*; object_store: no Ray.*; disk: .*versions \[2, 3\] and no more",
    ):
        await fetch(tickets[0])


async def test_weights_are_reissued_only_while_their_buffer_has_them(tmp_path):
    """Disk packs into one buffer, so the newest alone can be had again."""
    sync = WeightSync(SyncConfig(transport="disk"), tmp_path)
    sync.publish(weights(1), 1)
    sync.publish(weights(2), 2)
    with pytest.raises(FetchError, match=r"versions \[2\] and no more those of 1"):
        sync.reissue(1, "shm")


async def test_all_whom_a_version_did_not_reach_share_one_copy(tmp_path):
    sync = WeightSync(SyncConfig(transport="shm"), tmp_path)
    sync.publish(weights(1), 1)
    first, second = sync.reissue(1, "disk"), sync.reissue(1, "disk")
    assert first is second
    assert_version(await fetch(second), 1)
    for version in (2, 3):
        sync.publish(weights(version), version)
        assert_version(await fetch(sync.reissue(version, "disk")), version)
    with pytest.raises(FetchError, match="no more those of 1"):
        sync.reissue(1, "disk")
    sync.close()


async def test_fetches_of_a_worker_take_turns(tmp_path):
    sync, receiver = WeightSync(SyncConfig(transport="shm"), tmp_path), WeightReceiver(SyncConfig())
    inside, leave = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with receiver.fetched(sync.publish(weights(1), 1)):
            inside.set()
            await leave.wait()

    one = asyncio.create_task(first())
    await inside.wait()
    two = asyncio.create_task(fetch(sync.publish(weights(2), 2), receiver))
    done, _ = await asyncio.wait({two}, timeout=0.05)
    assert not done, "the first bundle is still being read"
    leave.set()
    await one
    assert_version(await two, 2)


def test_publishing_waits_for_a_reissue_of_the_same_buffer(tmp_path):
    """A reissue under way holds the buffer; the next version is packed into it when it is done."""
    sync = WeightSync(SyncConfig(transport="disk"), tmp_path)
    sync.publish(weights(1), 1)
    sending, go_on, sent = threading.Event(), threading.Event(), []

    class Slow:
        def send(self, buffer, layout, version):
            sending.set()
            assert go_on.wait(10)
            sent.append(buffer.clone())

        def close(self):
            pass

    sync._senders["shm"] = Slow()  # type: ignore[assignment]
    again = threading.Thread(target=sync.reissue, args=(1, "shm"))
    again.start()
    assert sending.wait(10)
    publish = threading.Thread(target=sync.publish, args=(weights(2), 2))
    publish.start()
    publish.join(0.05)
    assert publish.is_alive()
    go_on.set()
    again.join(10)
    publish.join(10)
    assert (sent[0][: 4096 * 12].view(torch.float32) == 1).all()


def test_nccl_without_gpus_is_refused(tmp_path):
    raw = {"model": "m", "out": "o", "steps": 1, "data": {"train": "d"}, "sync": {"transport": "nccl"}}
    with pytest.raises(ConfigError, match=r"gpus_per_rank 0, rollout\.gpus_per_worker 0; set both, or .* gloo"):
        parse_config(TrainConfig, raw)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="needs a GPU in the learner"):
            WeightSync(SyncConfig(transport="nccl"), tmp_path)


def test_waits_must_nest():
    with pytest.raises(ConfigError, match=r"join_s 60 is not below timeout_s 60"):
        parse_config(SyncConfig, {"join_s": 60})
