"""Losses and advantages by import path."""

from __future__ import annotations

import pytest
import torch

from rl.algo.advantages import batch_advantages, group_advantages
from rl.algo.losses import LOSSES, NORMALISERS, load_loss
from rl.algo.tokens import LossInputs
from rl.config.base import parse_config
from rl.config.objective import AdvantageConfig, LossConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError
from rl.train import check

HERE = "tests.unit.algo.user_code"


def test_every_loss_says_what_it_is_divided_by():
    assert LOSSES.keys() == NORMALISERS.keys()
    for name in LOSSES:
        assert load_loss(LossConfig(name=name)) == (LOSSES[name], NORMALISERS[name])


def test_a_user_loss_gets_inputs_options_and_normaliser():
    config = LossConfig(name=f"{HERE}:reinforce", normaliser="tokens", options={"scale": 2.0})
    loss, counted = load_loss(config)
    assert counted == "tokens"
    current = torch.tensor([-1.0, -2.0], requires_grad=True)
    fixed = current.detach()
    inputs = LossInputs(current, fixed, fixed, torch.tensor([0.5, -1.0]), torch.tensor([0, 1]), 2)
    loss(inputs, config, 4.0).loss.backward()
    assert current.grad.tolist() == [-0.25, 0.5]  # -2 * A / 4


def test_user_advantages_get_valid_rewards_only_and_are_put_back_in_place():
    config = AdvantageConfig(bias=0.0, scale=1.0, group=f"{HERE}:above_median", batch_normalise=False)
    assert batch_advantages([(0.1, None, 0.9, 0.5), (None, None)], config) == [[-1.0, None, 1.0, -1.0], [None, None]]


@pytest.mark.parametrize("name", ["too_few", "not_finite"])
def test_user_advantages_that_make_no_sense(name):
    with pytest.raises(ConfigError, match=r"must return one finite number for each"):
        group_advantages((1.0, 0.0), AdvantageConfig(group=f"{HERE}:{name}"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("no.such.module:loss", r"module 'no.such.module' can't be imported .*put its folder on PYTHONPATH"),
        (f"{HERE}:missing", r"has no function 'missing'"),
        (f"{HERE}:NOT_A_FUNCTION", r"has no function 'NOT_A_FUNCTION'"),
    ],
)
def test_user_code_that_is_not_there(path, said):
    with pytest.raises(ConfigError, match=said):
        load_loss(LossConfig(name=path, normaliser="tokens"))


def test_a_dry_run_finds_missing_user_code(tmp_path):
    for name in ("config.json", "rows.jsonl"):
        (tmp_path / name).write_text("{}")
    raw = {"model": str(tmp_path), "out": "o", "steps": 1, "data": {"train": str(tmp_path)}}
    user = {
        "loss": {"name": f"{HERE}:missing", "normaliser": "tokens"},
        "advantages": {"group": f"{HERE}:above_median"},
    }
    (problem,) = check(parse_config(TrainConfig, {**raw, "algo": user}))
    assert "has no function 'missing'" in problem
    reference = {"loss": {"reference": {"coefficient": 0.1, "model": str(tmp_path / "gone")}}}
    (problem,) = check(parse_config(TrainConfig, {**raw, "algo": reference}))
    assert problem.startswith("algo.loss.reference.model")
