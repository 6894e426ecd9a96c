"""A worker that is added where the cluster is full: Ray's autoscaler starts a node for it, and takes it away again.

The autoscaler is Ray's own; its nodes are further Ray nodes of this machine, each with an object store of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import ray
import yaml
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions  # type: ignore[attr-defined]

from rl.control import ask
from rl.metrics.files import read_metrics
from tests.integration.faults.accounts import fates_of
from tests.integration.process import WAIT_S, Process, until, worker_states
from tests.integration.support import MAX_DELTA, Paths, marked_processes, train_config

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

STORE = 80 << 20
HEAD = "ray.head.default"
STEPS = 100_000
"""More than are made: the run goes on until it has seen the node come and go."""


class Elastic:
    """A head with room for a learner and one engine, and an autoscaler that may start one node with a CPU."""

    def __init__(self, folder: Path) -> None:
        # Ray keeps the address of the last cluster in its folder: in one of its own nobody takes this one for theirs.
        self._ray = TemporaryDirectory(prefix="ray-", dir="/tmp")  # a path of pytest's is too long for its sockets
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        config = folder / "cluster.json"
        config.write_text(json.dumps(_autoscaling(self.address)))
        self._before = set(marked_processes())
        options = ["--num-cpus=2", "--include-dashboard=false", f"--object-store-memory={STORE}"]
        options += [f"--temp-dir={self._ray.name}", f"--port={port}", f"--autoscaling-config={config}"]
        self._process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *options],
            env=os.environ | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"},
            stdout=(folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        self._state = GlobalState()
        self._state._initialize_global_state(GcsClientOptions.create(self.address, None, True, False))
        until(lambda: self._answers() and len(self.nodes()) == 1)

    def nodes(self) -> set[str]:
        """Ids of the nodes that live."""
        return {row["NodeID"] for row in self._state.node_table() if row["Alive"]}

    def holders(self, kind: str) -> list[str]:
        """Nodes of the living actors of a class."""
        rows = self._state.actor_table(None, None, "ALIVE").values()
        return [row["Address"]["NodeID"] for row in rows if row["ActorClassName"] == kind]

    def close(self) -> None:
        for pid in marked_processes().keys() - self._before:
            if psutil.pid_exists(pid):
                psutil.Process(pid).kill()
        self._process.wait()
        self._ray.cleanup()

    def _answers(self) -> bool:
        host, port = self.address.rsplit(":", 1)
        with socket.socket() as client:
            return client.connect_ex((host, int(port))) == 0


def _autoscaling(address: str) -> dict[str, Any]:
    """What `ray up` would write for nodes that are started on demand and go when they are idle for six seconds."""
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "elastic",
        "max_workers": 1,
        "idle_timeout_minutes": 0.1,
        "upscaling_speed": 1.0,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,  # all have the address of this machine
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "head_node_type": HEAD,
        "available_node_types": {
            HEAD: {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
            "engine": {"resources": {"CPU": 1, "object_store_memory": STORE}, "node_config": {}, "max_workers": 1},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in lists},
    }


@pytest.fixture
def elastic(tmp_path: Path) -> Iterator[Elastic]:
    cluster = Elastic(tmp_path)
    yield cluster
    cluster.close()


def test_a_node_comes_for_a_worker_and_goes_with_it(elastic: Elastic, paths: Paths, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = {
        "ray_address": elastic.address,
        "algo__max_staleness": 2,
        "rollout__cpus_per_worker": 1,
        "learner__threads": 1,
        "stall_timeout_s": 900,
    }
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(train_config(paths, out, steps=STEPS, **changes).model_dump(mode="json")))
    run = Process(config, address=elastic.address)
    run.reach(out, 1)
    (head,) = elastic.nodes()
    assert elastic.holders("RolloutWorker") == [head]

    assert "no room for it now" in ask(out, {"do": "add"}, wait_s=WAIT_S)["said"][1]
    until(lambda: worker_states(out) == {"rollout-0": "serving", "rollout-1": "serving"})
    (node,) = elastic.nodes() - {head}
    assert sorted(elastic.holders("RolloutWorker")) == sorted([head, node])
    assert elastic.holders("LearnerRank") == [head]
    run.reach(out, len(read_metrics(out).rows) + 3)

    ask(out, {"do": "drain", "names": ["rollout-1"]}, wait_s=WAIT_S)
    until(lambda: elastic.nodes() == {head})
    run.reach(out, len(read_metrics(out).rows) + 3)
    run.send(signal.SIGTERM)
    code, text = run.end()
    assert code == 75, text

    rows = read_metrics(out).rows
    assert {row["workers/rollout"] for row in rows} == {1.0, 2.0}
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)  # who joined serves the right weights
    timeline = [json.loads(line) for line in (out / "timeline.jsonl").read_text().splitlines()]
    assert {"rollout-0", "rollout-1"} <= {row["actor"] for row in timeline if row["phase"] == "generate"}
    counts = Counter(row["fate"] for row in fates_of(out))
    assert counts["trained"] == 4 * len(rows) and not counts["failed"]
