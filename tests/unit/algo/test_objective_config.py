"""Objectives that can't be: each is an error when the config is read, and says what to set."""

from __future__ import annotations

from typing import Any

import pytest

from rl.config.base import dump_config, load_config, parse_config, save_config
from rl.config.objective import CorrectionConfig, LossConfig
from rl.config.train import AlgoConfig, TrainConfig
from rl.errors import ConfigError

BASE = {"model": "m", "out": "o", "steps": 1, "data": {"train": "d"}}


def algo(**sections: Any) -> AlgoConfig:
    return parse_config(TrainConfig, {**BASE, "algo": sections}).algo


def test_the_default_is_gspo_with_capped_token_weights():
    loss = algo().loss
    assert (loss.name, loss.clip_low, loss.clip_high) == ("gspo", 0.2, 0.28)
    assert loss.correction == CorrectionConfig(level="token", mode="truncate", cap=5.0, proximal="recompute")
    assert (loss.dual_clip, loss.covariance, loss.reference, algo().filters.overlong) == (None, None, None, None)


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        ({"level": "none", "mode": "mask"}, "level none switches the weight off"),
        ({"level": "none", "cap": 2.0}, "level none switches the weight off"),
        ({"proximal": "behaviour"}, "always 1 and level token corrects nothing; set level: none"),
        ({"floor": 0.5}, "mode truncate only caps weights"),
        ({"mode": "icepop"}, "set level: token and a floor"),
        ({"mode": "icepop", "level": "sequence", "floor": 0.5}, "set level: token and a floor"),
        ({"mode": "mask", "floor": 5.0}, "floor 5.0 is not below cap 5.0"),
    ],
)
def test_impossible_corrections(correction, said):
    with pytest.raises(ConfigError, match=r"algo\.loss\.correction") as caught:
        algo(loss={"correction": correction})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"name": "sapo", "clip_high": 0.4}, "clip_high 0.4 has no part in name sapo: it belongs to gspo, gspo_token"),
        ({"name": "cispo", "dual_clip": 3.0}, "dual_clip 3.0 has no part in name cispo"),
        ({"name": "grpo", "tau_positive": 2.0}, "it belongs to sapo; remove it"),
        ({"name": "grpo", "length_constant": 512}, "it belongs to dr_grpo; remove it"),
        ({"name": "grpo", "normaliser": "tokens"}, "it belongs to user losses"),
        ({"name": "grpo", "options": {"x": 1}}, "it belongs to user losses"),
        ({"name": "my.losses:best"}, "set normaliser to what its sum is divided by"),
        ({"covariance": {"control": "kl_cov"}}, "set name: gspo_token"),
        (
            {"name": "grpo", "covariance": {"control": "clip_cov"}, "correction": {"proximal": "interpolate"}},
            "covariance needs proximal logprobs before the micro-batches",
        ),
        ({"name": "grpo", "covariance": {"control": "kl_cov", "low": 0.5}}, "low 0.5 has no part in control kl_cov"),
        ({"name": "grpo", "covariance": {"control": "clip_cov", "coefficient": 2}}, "it belongs to kl_cov"),
        ({"name": "grpo", "covariance": {"control": "clip_cov", "low": 6}}, "no covariance lies between"),
        ({"reference": {"coefficient": 0.1, "estimator": "k1"}}, "the gradient of k1 is zero on average"),
        ({"reference": {"coefficient": 0}}, "greater than 0"),
        ({"dual_clip": 1.0}, "greater than 1"),
    ],
)
def test_impossible_losses(loss, said):
    with pytest.raises(ConfigError) as caught:
        algo(loss=loss)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"loss": {"correction": {"proximal": "interpolate"}}}, "there is nothing to interpolate"),
        ({"loss": {"name": "grpo", "covariance": {"control": "kl_cov"}}}, "is 0 in the only update of a step"),
        ({"filters": {"overlong": {"buffer": 9000}}}, "buffer 9000 exceeds rollout.sampling.max_tokens 8192"),
        ({"filters": {"checks": {"repeat_share": 2}}}, "less than or equal to 1"),
    ],
)
def test_what_does_not_fit_the_run(sections, said):
    with pytest.raises(ConfigError) as caught:
        algo(**sections)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "sections",
    [
        {"updates_per_step": 2, "loss": {"correction": {"proximal": "interpolate"}}},
        {"updates_per_step": 2, "loss": {"name": "grpo", "covariance": {"control": "kl_cov"}}},
        {
            "loss": {
                "name": "gspo_token",
                "covariance": {"control": "kl_cov"},
                "correction": {"level": "none", "proximal": "behaviour"},
            }
        },
        {"loss": {"name": "grpo", "covariance": {"control": "clip_cov", "low": 0.1, "high": 2.0}}},
        {"loss": {"name": "cispo", "clip_low": None, "clip_high": 4.0}},
        {"loss": {"name": "dapo", "correction": {"mode": "icepop", "floor": 0.5}}},
        {"loss": {"name": "sapo", "correction": {"level": "product", "cap": 2.0}}},
        {"loss": {"name": "my.losses:best", "normaliser": "tokens", "options": {"width": 0.5}}},
        {"advantages": {"group": "rloo"}},
        {"advantages": {"group": "my.advantages:ranked"}},
        {"filters": {"truncated": "mask", "repeating": "count", "overlong": {"buffer": 1024}}},
        {"loss": {"reference": {"coefficient": 0.01, "estimator": "k1", "gradient": "unbiased"}}},
    ],
)
def test_possible_objectives_survive_writing_and_reading(sections, tmp_path):
    config = parse_config(TrainConfig, {**BASE, "algo": sections})
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config, dump_config(config)


def test_an_unknown_loss_names_the_known_ones():
    with pytest.raises(
        ConfigError, match=r"Input should be 'gspo', 'gspo_token', 'grpo', .* \(got 'grppo'\)"
    ) as caught:
        algo(loss={"name": "grppo"})
    assert "pattern" not in str(caught.value), "a plain name is no malformed import path"


@pytest.mark.parametrize("path", ["my.losses:", ":best", "my-losses:best", "a:b:c"])
def test_a_malformed_import_path(path):
    with pytest.raises(ConfigError, match="should match pattern"):
        algo(loss={"name": path, "normaliser": "tokens"})


def test_no_bound_is_written_as_null():
    assert LossConfig(name="cispo", clip_low=None).clip_low is None
