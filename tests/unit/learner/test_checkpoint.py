"""Learner checkpoints on one rank: what comes back, what does not, and what is refused."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from rl.errors import CheckpointError, TornCheckpointError
from rl.learner.fsdp import full_tensors
from rl.learner.step import optimizer_step
from rl.learner.strategy import Strategy
from rl.models.freeze import set_trainable
from tests.unit.learner.tiny import OPTIMIZER, cut, gspo_loss, prepare, text_policy, text_samples

pytestmark = pytest.mark.usefixtures("one_rank")


def step(strategy: Strategy) -> dict[str, torch.Tensor]:
    parts = cut(text_samples(strategy.policy), [[0, 2, 4, 6], [1, 3, 5]])
    optimizer_step(strategy, parts, gspo_loss(7), OPTIMIZER.clip_norm)
    return {name: tensor.clone() for name, tensor in full_tensors(strategy.policy).items()}


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_restored_run_makes_the_same_next_step(tmp_path, name, background):
    first = prepare(text_policy(0), name=name)
    step(first)
    step(first)
    writing = first.save(tmp_path / "state", 2, background)
    rate = first.schedule.get_last_lr()
    expected = step(first)  # in the background case the files may be written after it
    writing.result(timeout=30)

    second = prepare(text_policy(1), name=name)
    assert second.load(tmp_path / "state") == 2
    assert second.schedule.get_last_lr() == rate
    got = step(second)
    assert second.schedule.get_last_lr() == first.schedule.get_last_lr()
    for key, tensor in expected.items():
        assert torch.equal(got[key], tensor), key


def draws() -> list[Any]:
    return [random.gauss(0, 1), random.random(), np.random.normal(), np.random.random(), torch.rand(3).tolist()]


def test_random_numbers_go_on_where_they_were(tmp_path):
    strategy = prepare(text_policy())
    draws()  # leaves half of a pair of Gaussian draws in Python's and numpy's state
    strategy.save(tmp_path / "state", 0).result()
    expected = draws()
    assert draws() != expected
    strategy.load(tmp_path / "state")
    assert draws() == expected


def test_a_resumed_run_takes_the_rates_of_its_new_config(tmp_path):
    first = prepare(text_policy())
    for _ in range(3):
        step(first)
    first.save(tmp_path / "state", 3).result()
    changes = {"lr": 0.5, "betas": (0.5, 0.75), "weight_decay": 0.0, "warmup_steps": 4}
    second = prepare(text_policy(1), optimizer=changes)
    assert second.load(tmp_path / "state") == 3
    schedule = second.schedule
    # Three updates made, so the fourth comes next: (3 + 1) / 4 of the new rate.
    assert schedule.get_last_lr() == [0.5]
    for group in second.optimizer.param_groups:
        assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.5, 0.75), 0.0)
    schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.5)  # update 4 of 10: the linear decay begins at full rate
    schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.5 * 5 / 6)


def test_frozen_parameters_are_not_in_it(tmp_path):
    """They come from the model folder, here the same for both runs."""
    policies = [text_policy(), text_policy()]
    for policy in policies:
        set_trainable(policy, ["*norm*"])
    first, second = map(prepare, policies)
    step(first)
    first.save(tmp_path / "state", 1).result()
    saved = torch.distributed.checkpoint.FileSystemReader(tmp_path / "state").read_metadata().state_dict_metadata
    parameters = [key for key in saved if key.startswith("model.")]
    moments = [key for key in saved if key.endswith(".exp_avg")]
    assert len(parameters) == len(moments) == 5 and all("norm" in key for key in parameters + moments)
    expected = step(first)
    second.load(tmp_path / "state")
    got = step(second)
    assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())


def test_a_missing_or_foreign_checkpoint_says_so(tmp_path):
    strategy = prepare(text_policy())
    with pytest.raises(CheckpointError, match=r"no complete learner checkpoint \(.metadata is missing\)"):
        strategy.load(tmp_path / "nowhere")
    strategy.save(tmp_path / "state", 0).result()
    with pytest.raises(CheckpointError, match=r"is without 9 of them .*layers\.2"):
        prepare(text_policy(layers=3)).load(tmp_path / "state")
    frozen = text_policy()
    set_trainable(frozen, ["*norm*"])
    with pytest.raises(CheckpointError, match=r"has besides .* trainable and learner\.lora"):
        prepare(frozen).load(tmp_path / "state")
    with pytest.raises(CheckpointError, match="does not fit this run's model or optimiser"):
        prepare(text_policy(), name="muon").load(tmp_path / "state")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_a_file_that_is_cut_short_is_named(tmp_path, name):
    strategy = prepare(text_policy())
    strategy.save(tmp_path / "state", 0).result()
    damaged = tmp_path / "state" / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(TornCheckpointError, match=rf"{name} is torn"):
        strategy.load(tmp_path / "state")


@pytest.mark.parametrize("cut", [True, False])
def test_after_a_torn_checkpoint_an_older_one_is_read_as_ever(tmp_path, cut):
    first, second = prepare(text_policy()), prepare(text_policy(1))
    step(first)
    first.save(tmp_path / "older", 1).result()
    expected = step(first)
    first.save(tmp_path / "newer", 2).result()
    damaged = tmp_path / "newer" / "__0_0.distcp"
    size = damaged.stat().st_size
    damaged.write_bytes(damaged.read_bytes()[: size // 2] + (b"" if cut else b"\0" * (size - size // 2)))
    with pytest.raises(TornCheckpointError):
        second.load(tmp_path / "newer")
    assert second.load(tmp_path / "older") == 1
    got = step(second)
    assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())


def test_a_garbled_file_is_not_taken_for_another_model(tmp_path):
    strategy = prepare(text_policy())
    strategy.save(tmp_path / "state", 0).result()
    damaged = tmp_path / "state" / "__0_0.distcp"
    damaged.write_bytes(b"\0" * damaged.stat().st_size)
    with pytest.raises(TornCheckpointError, match=r"a file of .* is torn") as caught:
        strategy.load(tmp_path / "state")
    assert "Traceback" not in str(caught.value)
