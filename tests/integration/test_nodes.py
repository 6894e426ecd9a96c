"""Several nodes: pools bound to them by labels, the driver on neither, and a node that is killed in mid-run.

The nodes are Ray nodes of this machine, each with an object store of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray._common.utils
import ray._private.utils
import yaml
from ray.cluster_utils import Cluster

from rl.metrics.files import read_metrics
from tests.integration.faults.accounts import fates_of
from tests.integration.process import Process
from tests.integration.support import MAX_DELTA, Paths, train_config

pytestmark = [pytest.mark.timeout(1500), pytest.mark.slow]

STORE = 80 << 20
STEPS = 10
LOSS = Path(__file__).with_name("lost_objects.py")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs. Deaths of nodes are noticed in seconds, and no result travels by itself in a message."""
    # Others on this machine must not take the cluster for theirs.
    monkeypatch.setattr(ray._private.utils, "write_ray_address", lambda *_: None)
    monkeypatch.setattr(ray._common.utils, "reset_ray_address", lambda *_: None)
    system = {"health_check_period_ms": 1000, "health_check_initial_delay_ms": 1000, "max_direct_call_object_size": 100}
    head: dict[str, Any] = {"num_cpus": 0, "object_store_memory": STORE, "_system_config": system}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def add(cluster: Cluster, pool: str) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=STORE, labels={"pool": pool})


def placed(cluster: Cluster) -> dict[str, set[str]]:
    """Nodes by the class of the living actors that they hold, and that of the `driver`, which owns them."""
    found: dict[str, set[str]] = {"driver": set()}
    for row in cluster.global_state.actor_table(None, None, "ALIVE").values():
        found.setdefault(row["ActorClassName"], set()).add(row["Address"]["NodeID"])
        found["driver"].add(row["OwnerAddress"]["NodeID"])
    return found


def test_what_ray_says_of_objects_whose_node_died(nodes: Cluster) -> None:
    """What `rl.failures.object_lost` and the learner's fetch rely on."""
    holder = add(nodes, "holder")
    add(nodes, "reader")
    with subprocess.Popen(
        [sys.executable, str(LOSS), nodes.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().strip() == "held"
        nodes.remove_node(holder, allow_graceful=False)
        output = process.communicate("gone\n", timeout=600)[0]
    said = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert said == [{"argument": True, "fetched": [1], "lost": [0]}], output


def test_a_run_over_nodes_survives_the_death_of_one(nodes: Cluster, paths: Paths, tmp_path: Path) -> None:
    learner, first, second = (add(nodes, pool) for pool in ("learner", "rollout", "rollout"))
    out = tmp_path / "run"
    changes = {
        "ray_address": nodes.address,
        "algo__max_staleness": 2,
        "rollout__workers": 2,
        "rollout__labels": {"pool": "rollout"},
        "learner__labels": {"pool": "learner"},
        "rewards__labels": {"pool": "learner"},
        "rollout__faults": {"ping_every_s": 1, "hang_s": 300, "restarts": 3},
        "stall_timeout_s": 900,
    }
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(train_config(paths, out, steps=STEPS, **changes).model_dump(mode="json")))
    run = Process(config, address=nodes.address)
    run.reach(out, 2)
    where = placed(nodes)
    assert where["LearnerRank"] == where["RewardWorker"] == {learner.node_id}
    assert where["driver"] == {nodes.head_node.node_id}
    assert where["RolloutWorker"] == {first.node_id, second.node_id}

    nodes.remove_node(first, allow_graceful=False)
    third = add(nodes, "rollout")
    code, text = run.end()
    assert code == 0, text
    rows = read_metrics(out).rows
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["probe/logprob_delta_mean"] < MAX_DELTA for row in rows)
    print({key: value for key, value in rows[-1].items() if key.startswith("faults/")}, third.node_id)
    fates = fates_of(out)
    assert sorted(row["uid"] for row in fates) == list(range(len(fates)))
    counts = Counter(row["fate"] for row in fates)
    assert counts["trained"] == 4 * STEPS and counts["failed"] == 0
    assert "is lost and will be replaced" in text
