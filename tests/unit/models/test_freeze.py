"""Which parameters a list of groups and globs leaves to train."""

from __future__ import annotations

import pytest

from rl.errors import ConfigError
from rl.models.freeze import set_trainable
from tests.unit.learner.tiny import text_policy, vision_policy


def trained(policy, *patterns: str) -> set[str]:
    total = set_trainable(policy, patterns)
    names = {name.removeprefix("model."): p for name, p in policy.named_parameters()}
    assert total == sum(p.numel() for p in names.values() if p.requires_grad)
    return {name for name, p in names.items() if p.requires_grad}


@pytest.fixture(scope="module")
def policy():
    return vision_policy()


def test_groups_of_a_vision_language_model(policy):
    everything = {name.removeprefix("model.") for name, _ in policy.named_parameters()}
    tower = {name for name in everything if name.startswith("model.visual.")}
    assert trained(policy, "all") == everything
    assert trained(policy, "vision") == tower
    assert trained(policy, "language") == everything - tower
    projector = trained(policy, "projector")
    assert {name.split(".")[2] for name in projector} == {"merger", "deepstack_merger_list"}
    # Each merger is a norm and two linear layers: six tensors, here for the last layer and for one of deepstack.
    assert len(projector) == 12 and projector < tower
    assert trained(policy, "projector", "language") == everything - tower | projector


def test_globs(policy):
    assert trained(policy, "model.language_model.layers.1.mlp.*") == {
        f"model.language_model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    assert trained(policy, "*layers.?.self_attn.[qk]_proj.weight") == {
        f"model.language_model.layers.{i}.self_attn.{part}_proj.weight" for i in (0, 1) for part in "qk"
    }
    language = trained(policy, "language")
    assert trained(policy, "!*.mlp.*", "language") == {name for name in language if ".mlp." not in name}


def test_the_language_of_a_text_model_is_all_of_it():
    policy = text_policy()
    assert trained(policy, "language") == trained(policy, "all")


def test_one_name_of_a_tied_parameter_is_enough():
    policy = text_policy()
    assert trained(policy, "lm_head.*") == {"model.embed_tokens.weight"}
    assert "model.embed_tokens.weight" not in trained(policy, "all", "!lm_head.weight")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["projectors"], "did you mean projector?"),
        (["all", "!*embed_token.*"], "'\\*embed_token.\\*' matches no parameter"),
        (["model.language_model.layers.7.*"], "matches no parameter"),
        (["MODEL.*"], "matches no parameter"),
        (["all", "!*"], "leaves no parameter to train"),
        (["!*mlp*"], "leaves no parameter to train"),
    ],
)
def test_patterns_that_mean_nothing_are_errors(policy, patterns, message):
    before = [p.requires_grad for p in policy.parameters()]
    with pytest.raises(ConfigError, match=message):
        set_trainable(policy, patterns)
    assert [p.requires_grad for p in policy.parameters()] == before


def test_a_text_model_has_no_vision():
    with pytest.raises(ConfigError, match="'vision' matches no parameter"):
        set_trainable(text_policy(), ["vision"])
