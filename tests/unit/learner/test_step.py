"""One optimizer step on one rank: micro-batches, clipping, non-finite numbers."""

from __future__ import annotations

import pytest
import torch

from rl.config.learner import LogitsConfig
from rl.errors import DataError, DivergenceError
from rl.learner.fsdp import full_tensors
from rl.learner.step import Skips, optimizer_step
from tests.unit.learner.tiny import OPTIMIZER, cut, gspo_loss, prepare, text_policy, text_samples

pytestmark = pytest.mark.usefixtures("one_rank")

PARTS = {
    "one": [range(7)],
    "two": [[0, 2, 4, 6], [1, 3, 5]],
    "seven": [[i] for i in (3, 0, 6, 1, 5, 2, 4)],
}


def plain_gradients(tied: bool = True) -> dict[str, torch.Tensor]:
    """GSPO's gradient at ratio 1 from the bare model, one unpadded sequence at a time.

    d loss / d logprob of a token is -(mean weight) * A / (sequences * length), as in tests/golden.
    """
    policy = text_policy(tied=tied)
    total = torch.zeros(())
    for i, sample in enumerate(text_samples(policy)):
        ids = torch.from_numpy(sample.input_ids)[None]
        logp = torch.log_softmax(policy.model(input_ids=ids).logits[0].float(), -1)
        positions = torch.tensor([sample.prompt_length + t for t, on in enumerate(sample.trained) if on])
        tokens = logp[positions - 1, ids[0, positions]]
        weights = (tokens.detach() - torch.log(torch.tensor(1 / 40))).exp().clamp(max=5.0)
        advantage = 1.0 if i % 2 == 0 else -0.5
        total = total - weights.mean() * advantage * tokens.mean() / 7
    total.backward()
    return {name: p.grad for name, p in policy.named_parameters()}  # type: ignore[misc]


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("wrap", ["root", "blocks"])
@pytest.mark.parametrize("parts", PARTS)
def test_gradients_do_not_depend_on_the_number_of_micro_batches(parts, wrap, layout):
    policy = text_policy()
    samples = text_samples(policy)
    strategy = prepare(policy, wrap)
    batches = cut(samples, PARTS[parts], packed=layout == "packed")
    _, norm = optimizer_step(strategy, batches, gspo_loss(7), clip_norm=1e9)
    expected = plain_gradients()
    got = {name: p.grad.full_tensor() for name, p in policy.named_parameters()}
    assert got.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=1e-6)
    assert norm == pytest.approx(sum(float(g.square().sum()) for g in expected.values()) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_tiled_logits_give_the_plain_gradients(tied):
    policy = text_policy(tied=tied, logits=LogitsConfig(tile_mib=0.001))  # 131 logits, of 40 a token
    batches = cut(text_samples(policy), PARTS["two"])
    optimizer_step(prepare(policy), batches, gspo_loss(7), clip_norm=1e9)
    expected = plain_gradients(tied)
    assert ("model.lm_head.weight" in expected) is not tied
    for name, parameter in policy.named_parameters():
        torch.testing.assert_close(parameter.grad.full_tensor(), expected[name], rtol=0, atol=1e-5)


def test_gradients_are_scaled_to_the_clip_norm():
    policy = text_policy()
    strategy = prepare(policy)
    parts = cut(text_samples(policy), [range(7)])
    _, norm = optimizer_step(strategy, parts, gspo_loss(7), clip_norm=1e-3)
    assert norm > 1e-2, "the norm is the one before clipping"
    clipped = sum(float(p.grad.full_tensor().square().sum()) for p in policy.parameters()) ** 0.5
    assert clipped == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(bad):
    policy = text_policy()
    samples = text_samples(policy)
    strategy = prepare(policy)
    parts = cut(samples, PARTS["two"])
    optimizer_step(strategy, parts, gspo_loss(7), OPTIMIZER.clip_norm)
    before = {name: tensor.clone() for name, tensor in full_tensors(policy).items()}
    rate = strategy.schedule.get_last_lr()
    good = gspo_loss(7)
    with pytest.raises(DivergenceError, match=r"not finite, so the update was not made"):
        optimizer_step(
            strategy,
            parts,
            lambda batch, scores: good(batch, scores) * (bad if len(batch.index) == 3 else 1.0),
            OPTIMIZER.clip_norm,
        )
    after = full_tensors(policy)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert strategy.schedule.get_last_lr() == rate
    assert all(p.grad is None for p in policy.parameters())
    # The run may go on from here: the next good update is a finite one.
    _, norm = optimizer_step(strategy, parts, good, OPTIMIZER.clip_norm)
    assert 0 < norm < float("inf")


def test_a_loss_that_is_not_finite_over_gradients_that_are():
    """As a penalty that overflows in a constant: the gradient alone would not tell."""
    policy = text_policy()
    strategy = prepare(policy)
    before = {name: tensor.clone() for name, tensor in full_tensors(policy).items()}
    good = gspo_loss(7)
    first = [True, False]
    with pytest.raises(DivergenceError, match="loss inf"):
        optimizer_step(
            strategy,
            cut(text_samples(policy), PARTS["two"]),
            lambda batch, scores: good(batch, scores) + (float("inf") if first.pop(0) else 0.0),
            OPTIMIZER.clip_norm,
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in full_tensors(policy).items())
    assert strategy.optimizer.state == {}


def test_a_rank_without_a_micro_batch_is_an_error():
    with pytest.raises(DataError, match="a rank without a sequence to train on"):
        optimizer_step(prepare(text_policy()), [], gspo_loss(7), OPTIMIZER.clip_norm)


def test_skipped_updates_are_counted_in_a_row(caplog):
    skips, cause = Skips(2), DivergenceError("loss nan")
    for _ in range(2):
        skips.left_out(cause)
        skips.left_out(cause)
        skips.made()
    assert [record.message[:33] for record in caplog.records] == [
        "update left out (1 in a row, 2 al",
        "update left out (2 in a row, 2 al",
    ] * 2
    skips.left_out(cause)
    skips.left_out(cause)
    with pytest.raises(DivergenceError, match="loss nan"):
        skips.left_out(cause)
    with pytest.raises(DivergenceError):
        Skips(0).left_out(cause)


def test_a_gradient_that_is_not_finite_under_a_finite_loss():
    policy = text_policy()
    strategy = prepare(policy)
    before = {name: tensor.clone() for name, tensor in full_tensors(policy).items()}

    def loss(batch, scores):
        return (scores.logprobs - scores.logprobs.detach()).abs().sqrt().sum()  # sqrt at 0: value 0, slope infinite

    with pytest.raises(DivergenceError, match="gradient norm nan"):
        optimizer_step(strategy, cut(text_samples(policy), [range(7)]), loss, 1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in full_tensors(policy).items())


def test_frozen_parameters_stay_as_they_are():
    policy = text_policy()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("norm" in name)
    strategy = prepare(policy)
    before = {name: tensor.clone() for name, tensor in full_tensors(policy).items()}
    parts = cut(text_samples(policy), PARTS["two"])
    optimizer_step(strategy, parts, gspo_loss(7), OPTIMIZER.clip_norm)
    moved = {name for name, tensor in full_tensors(policy).items() if not torch.equal(before[name], tensor)}
    assert moved == {name for name in before if "norm" in name}


def test_no_weight_decay_and_no_gradient_is_no_change():
    policy = text_policy()
    strategy = prepare(policy, optimizer={"lr": 1.0, "weight_decay": 0.0})
    before = {name: tensor.clone() for name, tensor in full_tensors(policy).items()}
    parts = cut(text_samples(policy), [range(7)])
    loss, norm = optimizer_step(strategy, parts, lambda _, s: s.logprobs.sum() * 0.0, 1.0)
    assert (loss, norm) == (0.0, 0.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in full_tensors(policy).items())
