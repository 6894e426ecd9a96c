"""With S = 0 a run that was resumed after SIGKILL of its driver is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed.checkpoint as dcp
import yaml
from safetensors.torch import load_file

from rl.checkpoint_folder import complete_checkpoints
from rl.metrics.files import read_metrics
from tests.integration.process import Process
from tests.integration.support import Paths, train_config

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

STEPS, BROKEN = 4, 2
LEARNED = ("loss", "grad_norm", "lr", "entropy", "tokens/trained", "clip/", "kl/", "behaviour_weight/")


def numbers(run: Path) -> list[dict[str, Any]]:
    """What the learner reported of the steps after the break.

    Other numbers may differ: those of clocks, of groups that were finished but not yet trained when the run broke, and
    of the probe, whose sequences are sampled anew.
    """
    rows = [row for row in read_metrics(run).rows if row["step"] > BROKEN]
    return [{key: value for key, value in row.items() if key.startswith(LEARNED)} for row in rows]


def trained(run: Path) -> list[tuple[int, str, int]]:
    """Admission, sample and step of every trained group."""
    rows = map(json.loads, (run / "fates.jsonl").read_text().splitlines())
    return sorted((row["uid"], row["sample_id"], row["step"]) for row in rows if row["fate"] == "trained")


def learner_state(checkpoint: Path) -> dict[str, Any]:
    """Everything in a learner checkpoint, flat, but for generators that no step draws from: each process begins with
    other ones."""
    reader = dcp.FileSystemReader(checkpoint / "learner")
    state: dict[str, Any] = {}
    for key, meta in reader.read_metadata().state_dict_metadata.items():
        if key.startswith("random.") and key.endswith((".python", ".numpy")):
            continue
        is_tensor = isinstance(meta, dcp.metadata.TensorStorageMetadata)
        state[key] = torch.empty(meta.size, dtype=meta.properties.dtype) if is_tensor else None
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def _complete(process: Process, out: Path) -> None:
    process.reach(out, STEPS)
    code, text = process.end()
    assert code == 0, text


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_resumed_after_sigkill_is_the_uninterrupted_one(
    cluster: None, paths: Paths, tmp_path: Path, ranks: int
) -> None:
    """On the session's Ray, which outlives the driver, and has processors for two ranks whatever the machine has."""
    changes = {
        "steps": STEPS,
        "stall_timeout_s": 600,
        "checkpoint__every": BROKEN,
        "rollout__engine__deterministic": True,
        "rollout__sampling__max_tokens": 12,
        "learner__ranks": ranks,
        "learner__optimizer__schedule": "cosine",
        "algo__updates_per_step": 2,
    }
    address = ray.get_runtime_context().gcs_address
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    files = [tmp_path / f"{out.name}.yaml" for out in (whole, broken)]
    for file, out in zip(files, (whole, broken), strict=True):
        file.write_text(yaml.safe_dump(train_config(paths, out, **changes).model_dump(mode="json")))
    _complete(Process(files[0], address=address), whole)

    killed = Process(files[1], address=address)
    killed.reach(broken, BROKEN + 1)  # a step after the checkpoint is on record, and the one after it is under way
    killed.send(signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL
    assert [path.name for path in complete_checkpoints(broken)] == [f"step_{BROKEN:06d}"]
    assert len(read_metrics(broken).rows) == BROKEN + 1
    _complete(Process(files[1], "--resume", address=address), broken)

    last = [run / "checkpoints" / f"step_{STEPS:06d}" for run in (whole, broken)]
    weights = [load_file(folder / "hf" / "model.safetensors") for folder in last]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor), name
    before = load_file(whole / "checkpoints" / f"step_{BROKEN:06d}" / "hf" / "model.safetensors")
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights[0].items())
    states = [learner_state(folder) for folder in last]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        same = torch.equal(states[1][key], value) if isinstance(value, torch.Tensor) else states[1][key] == value
        assert same, key
    assert len(numbers(whole)) == STEPS - BROKEN and all(row["grad_norm"] > 0 for row in numbers(whole))
    assert numbers(broken) == numbers(whole)
    assert trained(broken) == trained(whole)
