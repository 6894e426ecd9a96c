"""The loss over a step of two updates: normalisers, the reference, chosen tokens and proximal logprobs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rl.batch.sequences import ImageTable
from rl.config.train import TrainConfig
from rl.errors import ConfigError
from rl.learner.objective import Objective, token_logprobs
from rl.learner.samples import ages_of, priorities_of, rollout_samples
from rl.records import Group, Rollout, VersionSpan
from tests.unit.learner.ranks import OBJECTIVES
from tests.unit.learner.tiny import cut, objective_step, prepare, rollouts, text_policy, text_samples

pytestmark = pytest.mark.usefixtures("one_rank")

PARTS = {
    "two": [[0, 2, 4, 6], [1, 3, 5]],
    "seven": [[i] for i in (3, 0, 6, 1, 5, 2, 4)],
}
WHOLE = [list(range(7))]
LOSSES: dict[str, dict[str, Any]] = {
    **OBJECTIVES,
    "interpolated": {"name": "sapo", "correction": {"proximal": "interpolate", "level": "product"}},
    "behaviour": {"name": "cispo", "correction": {"proximal": "behaviour", "level": "none"}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    text_policy(seed=3).model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", LOSSES)
def test_the_update_does_not_depend_on_micro_batches(name, model):
    whole = objective_step(text_policy(), WHOLE, model, **LOSSES[name])
    start = {key.removeprefix("model."): p for key, p in text_policy().named_parameters()}
    assert any((whole[key] - p).abs().max() > 1e-4 for key, p in start.items()), "the step must change something"
    for parts in PARTS.values():
        got = objective_step(text_policy(), parts, model, **LOSSES[name])
        for key in start:
            torch.testing.assert_close(got[key], whole[key], rtol=0, atol=1e-6)
        assert got["sums"] == pytest.approx(whole["sums"], rel=1e-4, abs=1e-5)


def objective(model: str, updates: int = 2, **loss: Any) -> Objective:
    raw = {"model": model, "out": "o", "steps": 1, "data": {"train": "d"}}
    raw["algo"] = {"prompts_per_step": 8, "updates_per_step": updates, "loss": loss}
    policy = text_policy()
    prepare(policy)
    return Objective(TrainConfig.model_validate(raw), policy, torch.device("cpu"))


def inputs_of(made: Objective, index: int = 0):
    """The update and its batches, of all seven samples in one micro-batch."""
    samples = rollouts(text_samples(made.policy))
    batches = cut([sample.tokens for sample in samples], WHOLE)
    return made.prepare(samples, batches, index, 7), samples, batches


@pytest.mark.parametrize(
    ("loss", "normaliser"),
    [
        ({"name": "gspo"}, 7.0),
        ({"name": "dapo"}, 22.0),
        ({"name": "dr_grpo"}, 7.0 * 8192),
        ({"name": "dr_grpo", "length_constant": 10}, 70.0),
        ({"name": "tests.unit.algo.user_code:reinforce", "normaliser": "tokens"}, 22.0),
    ],
)
def test_normalisers(loss, normaliser, model):
    update, samples, _ = inputs_of(objective(model, **loss))
    # Responses of 2 + i % 5 tokens without the fourth, which is the environment's: 22 tokens.
    assert [sample.tokens.trained_tokens for sample in samples] == [2, 3, 3, 4, 5, 2, 3]
    assert update.normaliser == normaliser


def test_the_reference_is_the_frozen_model_of_the_config(model):
    made = objective(model, reference={"coefficient": 0.1})
    update, _, batches = inputs_of(made)
    (got,) = update.reference
    other = text_policy(seed=3)
    prepare(other)
    torch.testing.assert_close(got, token_logprobs(other, batches, 1.0)[0], rtol=0, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in made.reference.parameters())
    assert objective(model).reference is None, "without a penalty no second model is held"


def test_a_reference_of_another_vocabulary_is_refused(model, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaConfig(vocab_size=24, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(small).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has 24 tokens and the policy 40"):
        objective(model, reference={"coefficient": 0.1, "model": str(tmp_path)})


@pytest.mark.parametrize(
    ("correction", "first", "second"),
    [
        ({}, "current", "recomputed"),
        ({"proximal": "interpolate"}, "current", "interpolated"),
        ({"proximal": "behaviour", "level": "none"}, "behaviour", "behaviour"),
    ],
)
def test_where_proximal_logprobs_come_from(correction, first, second, model):
    made = objective(model, name="grpo", correction=correction)
    for index, source in enumerate((first, second)):
        update, samples, batches = inputs_of(made, index)
        current = token_logprobs(made.policy, batches, 1.0)[0] - 0.5  # as if the first update had moved it
        behaviour = torch.cat([torch.from_numpy(sample.behaviour) for sample in samples])
        scores = type("Scores", (), {"logprobs": current})()
        got = made._proximal(update, 0, scores)
        age = torch.cat([torch.full((len(s.behaviour),), float(i % 3)) for i, s in enumerate(samples)])
        expected = {
            "current": current,
            "behaviour": behaviour,
            "recomputed": current + 0.5,
            "interpolated": behaviour + age / (age + 0.5) * (current - behaviour),
        }[source]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_chosen_tokens_have_the_highest_covariances(model):
    made = objective(model, name="grpo", covariance={"control": "kl_cov", "share": 0.25})
    update, samples, batches = inputs_of(made)
    logprobs = token_logprobs(made.policy, batches, 1.0)[0].double()
    advantages = torch.cat([torch.full((len(s.behaviour),), s.advantage) for s in samples]).double()
    covariance = (advantages - advantages.mean()) * (logprobs - logprobs.mean())
    chosen = set(covariance.argsort(descending=True)[:5].tolist())  # a quarter of 22
    assert set(torch.nonzero(update.selected[0])[:, 0].tolist()) == chosen


def test_completions_keep_their_versions_and_are_told_apart():
    spans = (VersionSpan(7, 0, 2), VersionSpan(8, 2, 3))
    ids, logprobs = np.array([4, 5, 6], dtype=np.int32), np.array([-1.0, -2.0, -3.0], dtype=np.float32)
    made = Rollout(ids, logprobs, spans, "stop", "")
    group = Group(5, "x", np.array([3, 9], dtype=np.int32), (), (), (made, made, made))
    first, second = rollout_samples(group, [1.0, None, -1.0], text_policy(), None, ImageTable(), version=9)  # type: ignore[arg-type]
    assert first.versions.tolist() == [7, 7, 8]
    batch = cut([first.tokens, second.tokens], [[1, 0]])[0]
    assert ages_of([first, second], batch).tolist() == [2, 2, 1, 2, 2, 1]
    assert (first.advantage, second.advantage) == (1.0, -1.0)
    assert first.key != second.key
    draws = priorities_of([first, second], batch)
    assert len(set(draws.tolist())) == 6
    alone = cut([second.tokens], [[0]])[0]
    assert priorities_of([second], alone).tolist() == draws[:3].tolist(), "whatever batch it is in"
