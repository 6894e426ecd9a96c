"""Bringing actors up: what does not fit, what takes too long, what fails. Ray's view of the cluster is replaced."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import subprocess
from types import SimpleNamespace

import psutil
import pytest
from ray._private import services

import rl.nodes
import rl.ray_start
from rl.config.learner import LearnerConfig
from rl.config.rollout import RolloutConfig
from rl.errors import ClusterError, ConfigError, EngineDeadError, StarvationError
from rl.nodes import Need, needs_of, placement


@pytest.fixture(autouse=True)
def small_cluster(monkeypatch):
    monkeypatch.setattr(rl.nodes.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(rl.nodes.ray, "available_resources", lambda: {"CPU": 1.0})


def test_actors_that_fit_are_let_through():
    rl.nodes.check_capacity(needs_of(RolloutConfig(workers=1), LearnerConfig(ranks=1, threads=1)), may_grow=False)


def test_a_machine_that_is_too_small_is_refused_with_what_to_set():
    rollout, learner = RolloutConfig(workers=2, gpus_per_worker=1), LearnerConfig(ranks=1, threads=1)
    with pytest.raises(
        ConfigError,
        match=r"need 3 CPUs where the cluster has 2 and 2 GPUs where the cluster has 0; lower rollout\.workers",
    ):
        rl.nodes.check_capacity(needs_of(rollout, learner), may_grow=False)


def test_a_cluster_that_may_grow_is_waited_for(caplog):
    with caplog.at_level(logging.WARNING):
        rl.nodes.check_capacity(needs_of(RolloutConfig(workers=3)), may_grow=True)
    assert "need 3 CPUs where the cluster has 2" in caplog.text and "Waiting for nodes" in caplog.text


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "Ray can't be started on this machine: The current node timed out.*ray stop"),
        ("ray://head:1", "the Ray cluster at ray://head:1 can't be joined: The current node timed out.*ray_address"),
    ],
)
def test_a_cluster_that_does_not_come_up_is_one_error(monkeypatch, address, said):
    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.\nAnd more.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(rl.nodes.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(rl.nodes.ray, "init", late)
    monkeypatch.setattr(rl.ray_start, "TRIES", 1)
    with pytest.raises(ClusterError, match=f"(?s){said}") as caught:
        rl.nodes.connect(address, RolloutConfig())
    assert "And more" not in str(caught.value)


@pytest.mark.parametrize("asked", ["auto", None])
def test_a_cluster_where_nobody_listens_is_not_waited_for(monkeypatch, asked):
    """Named, or left in the file that Ray's search reads."""
    with socket.socket() as taken:  # bound, so that nobody else gets the port, and not listening
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(services, "get_ray_address_from_environment", lambda *_: address)
        with pytest.raises(
            ClusterError, match=f"cluster at {asked or address} can't be joined: .*refused.*ray_address"
        ):
            rl.nodes.connect(asked or address, RolloutConfig())


def test_a_start_that_is_too_slow_is_tried_again_and_leaves_nothing(monkeypatch):
    started: list[subprocess.Popen[bytes]] = []

    def late_at_first(**_: object) -> None:
        if len(started) == 2:
            return
        started.append(subprocess.Popen(["sleep", "600"]))
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(rl.nodes.ray, "init", late_at_first)
    rl.ray_start.start_ray()
    assert len(started) == 2 and not any(psutil.pid_exists(process.pid) for process in started)


def test_another_mistake_of_the_start_is_not_tried_again(monkeypatch):
    tries = []

    def wrong(**_: object) -> None:
        tries.append(1)
        raise ValueError("no such option")

    monkeypatch.setattr(rl.nodes.ray, "init", wrong)
    with pytest.raises(ValueError, match="no such option"):
        rl.ray_start.start_ray()
    assert len(tries) == 1


async def test_a_start_that_takes_long_names_what_it_waits_for(monkeypatch, caplog):
    monkeypatch.setattr(rl.nodes, "_NOTICE_S", 0.01)
    clock = itertools.count(step=60)  # a minute passes whenever it is read: at the start and twice in each turn
    monkeypatch.setattr(rl.nodes, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    never = asyncio.Event()
    with caplog.at_level(logging.WARNING), pytest.raises(StarvationError, match=r"learner not ready after 180 s.* 1 C"):
        await rl.nodes.bring_up({"learner": never.wait(), "rollout workers": asyncio.sleep(0)}, limit_s=200)
    assert "learner not ready after 60 s" in caplog.text and "rollout workers" not in caplog.text


async def test_the_first_failure_ends_the_wait():
    async def die() -> None:
        raise EngineDeadError("gone")

    never = asyncio.Event()
    with pytest.raises(EngineDeadError, match="gone"):
        await rl.nodes.bring_up({"learner": never.wait(), "rollout workers": die()})


def test_labels_bind_a_pool_to_nodes(monkeypatch):
    nodes = [
        {"Alive": True, "Labels": {"pool": "rollout", "zone": "a"}, "Resources": {"CPU": 1.0}},
        {"Alive": False, "Labels": {"pool": "learner"}, "Resources": {"CPU": 1.0}},
        {"Alive": True, "Labels": {}, "Resources": {"CPU": 1.0}},
    ]
    monkeypatch.setattr(rl.nodes.ray, "nodes", lambda: nodes)
    rl.nodes.check_capacity([Need("rollout", {"CPU": 1}, {"pool": "rollout"})], may_grow=False)
    with pytest.raises(ConfigError, match=r"need 2 CPUs on nodes labelled pool=rollout, which have 1; lower rollout"):
        rl.nodes.check_capacity([Need("rollout", {"CPU": 2}, {"pool": "rollout"})], may_grow=False)
    with pytest.raises(ConfigError, match=r"nodes labelled pool=learner \(learner\.labels\), of which there is none"):
        rl.nodes.check_capacity([Need("learner", {"CPU": 1}, {"pool": "learner"})], may_grow=False)


def test_custom_resources_are_counted_and_given_to_the_actors():
    rollout = RolloutConfig(workers=3, resources={"engine": 0.5}, labels={"pool": "rollout"})
    assert needs_of(rollout) == [Need("rollout", {"CPU": 3.0, "GPU": 0.0, "engine": 1.5}, {"pool": "rollout"})]
    assert placement(rollout) == {"resources": {"engine": 0.5}, "label_selector": {"pool": "rollout"}}
    assert placement(RolloutConfig()) == {}


@pytest.mark.parametrize(
    ("resources", "said"), [({"GPU": 1}, "GPU is no custom resource"), ({"engine": 0}, "set more than 0")]
)
def test_resources_that_mean_nothing_are_refused(resources, said):
    with pytest.raises(ValueError, match=said):
        RolloutConfig(resources=resources)
