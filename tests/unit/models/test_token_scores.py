"""Scores made tile by tile: against numbers worked by hand, finite differences and the whole logits."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rl.config.learner import LogitsConfig
from rl.errors import ConfigError
from rl.models.policy import Policy
from rl.models.token_scores import Readout, ScoringHead, TokenScores, score_tokens, scores_of_logits, tile_shape
from tests.unit.learner.tiny import cut, text_policy, text_samples

SMALL = LogitsConfig(tile_mib=0.01)
"""1,310 logits in float32: tiles of 36 x 36."""
N, H, V = 97, 16, 503
READOUTS = {
    "plain": Readout(),
    "hot": Readout(temperature=0.6),
    # 0..39 cover the first tile of columns.
    "excluded": Readout(1.7, (*range(40), 100, 502)),
}


def inputs(
    n: int = N, dtype: torch.dtype = torch.float32, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden [n, H], weight [V, H], targets [n] that no readout excludes."""
    generator = torch.Generator().manual_seed(1)
    hidden = scale * torch.randn(n, H, generator=generator)
    weight = torch.randn(V, H, generator=generator)
    targets = 101 + torch.randint(0, 400, (n,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def gradients(scores: TokenScores, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Of a sum with a different factor for every token."""
    factors = torch.linspace(-2, 3, len(scores.logprobs), dtype=scores.logprobs.dtype)
    return torch.autograd.grad((factors * scores.logprobs).sum(), leaves)


def test_by_hand():
    """Logits log 1, log 2, log 5: p = 1/8, 2/8, 5/8; at temperature 1/2 the weights are squared, 1 + 4 + 25 = 30."""
    weight = torch.tensor([1.0, 2.0, 5.0]).log()[:, None]
    hidden, targets = torch.ones(3, 1), torch.tensor([0, 1, 2])
    scores = score_tokens(hidden, weight, targets, Readout(), LogitsConfig(tile_mib=1e-6))  # a logit at a time
    assert scores.logprobs.tolist() == pytest.approx([math.log(1 / 8), math.log(2 / 8), math.log(5 / 8)])
    # H = log 8 - (2 log 2 + 5 log 5) / 8
    assert scores.entropy.tolist() == pytest.approx([math.log(8) - (2 * math.log(2) + 5 * math.log(5)) / 8] * 3)
    assert scores.top1.tolist() == [False, False, True]
    sharp = score_tokens(hidden, weight, targets, Readout(0.5), LogitsConfig())
    assert sharp.logprobs.tolist() == pytest.approx([math.log(1 / 30), math.log(4 / 30), math.log(25 / 30)])
    without = score_tokens(hidden, weight, targets, Readout(1.0, (2,)), LogitsConfig())
    assert without.logprobs.tolist() == pytest.approx([math.log(1 / 3), math.log(2 / 3), -math.inf])
    assert without.top1.tolist() == [False, True, False]


def test_gradient_by_hand():
    """d log p_t / d w_v = h (1[v = t] - p_v) / T and d log p_t / d h = (w_t - sum p_v w_v) / T."""
    weight = torch.tensor([1.0, 2.0, 5.0]).log()[:, None].requires_grad_()
    hidden = torch.ones(1, 1, requires_grad=True)
    scores = score_tokens(hidden, weight, torch.tensor([1]), Readout(0.5), LogitsConfig(tile_mib=1e-6))
    to_hidden, to_weight = torch.autograd.grad(scores.logprobs.sum(), (hidden, weight))
    assert to_weight[:, 0].tolist() == pytest.approx([-2 / 30, 2 - 8 / 30, -50 / 30])
    assert to_hidden.item() == pytest.approx(2 * (math.log(2) - (4 * math.log(2) + 25 * math.log(5)) / 30))


@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
@pytest.mark.parametrize("n", [0, 1, 36, N])
def test_parity_with_whole_logits(n, readout):
    hidden, weight, targets = inputs(n)
    got = score_tokens(hidden, weight, targets, readout, SMALL)
    want = scores_of_logits(hidden @ weight.T, targets, readout)
    torch.testing.assert_close(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)
    assert torch.equal(got.top1, want.top1)
    for mine, theirs in zip(gradients(got, hidden, weight), gradients(want, hidden, weight), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_parity_with_a_bias():
    hidden, weight, targets = inputs()
    bias = torch.linspace(-3, 3, V).requires_grad_()
    leaves = (hidden, weight, bias)
    got = score_tokens(hidden, weight, targets, READOUTS["excluded"], SMALL, bias)
    want = scores_of_logits(nn.functional.linear(hidden, weight, bias), targets, READOUTS["excluded"])
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)
    for mine, theirs in zip(gradients(got, *leaves), gradients(want, *leaves), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
def test_gradients_by_finite_differences(readout):
    hidden, weight, targets = inputs(5, torch.float64)
    bias = torch.zeros(V, dtype=torch.float64, requires_grad=True)

    def logprobs(*leaves: torch.Tensor) -> torch.Tensor:
        return score_tokens(leaves[0], leaves[1], targets, readout, LogitsConfig(tile_mib=0.02), leaves[2]).logprobs

    assert torch.autograd.gradcheck(logprobs, (hidden, weight, bias), fast_mode=True)


def test_logits_of_thousands_stay_finite():
    hidden, weight, targets = inputs(scale=1000.0)
    got = score_tokens(hidden, weight, targets, Readout(), SMALL)
    exact = scores_of_logits((hidden.double() @ weight.double().T), targets, Readout())
    torch.testing.assert_close(got.logprobs, exact.logprobs, rtol=1e-5, atol=0)
    torch.testing.assert_close(got.entropy, exact.entropy, rtol=1e-3, atol=1e-3)


def test_bfloat16_is_as_near_the_truth_as_whole_logits_are():
    hidden, weight, targets = inputs(dtype=torch.bfloat16)
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    readout = READOUTS["hot"]
    truth = gradients(score_tokens(*exact, targets, readout, SMALL), *exact)
    tiled = gradients(score_tokens(hidden, weight, targets, readout, SMALL), hidden, weight)
    whole = gradients(scores_of_logits(hidden @ weight.T, targets, readout), hidden, weight)
    for mine, theirs, true in zip(tiled, whole, truth, strict=True):
        assert mine.dtype == torch.bfloat16
        assert (mine - true).norm() < 1.2 * (theirs - true).norm()


def test_only_what_is_trained_gets_a_gradient():
    hidden, weight, targets = inputs()
    scores = score_tokens(hidden, weight.detach(), targets, Readout(), SMALL)
    assert not scores.entropy.requires_grad and not scores.top1.requires_grad
    scores.logprobs.sum().backward()
    assert hidden.grad is not None and weight.grad is None
    assert not score_tokens(hidden.detach(), weight.detach(), targets, Readout(), SMALL).logprobs.requires_grad


def test_a_target_that_cannot_be_scored():
    hidden, weight, _ = inputs(3)
    scores = score_tokens(hidden, weight, torch.tensor([7, V, -100]), Readout(1.0, (7,)), SMALL)
    assert scores.logprobs[0] == -math.inf
    assert scores.logprobs[1:].isnan().all()


class Largest(TorchDispatchMode):
    """Entries of the largest tensor that any operation makes."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.entries = max(self.entries, made.numel())
        return made


def test_no_tensor_is_larger_than_a_tile_or_a_gradient():
    hidden, weight, targets = inputs()
    with Largest() as tiled:
        score_tokens(hidden, weight, targets, READOUTS["excluded"], SMALL).logprobs.sum().backward()
    assert tiled.entries == V * H
    with Largest() as whole:
        scores_of_logits(hidden @ weight.T, targets, READOUTS["excluded"]).logprobs.sum().backward()
    assert whole.entries == N * V


@pytest.mark.parametrize("rows", [0, 1, 100, 16384])
@pytest.mark.parametrize("columns", [1, 512, 151936])
@pytest.mark.parametrize("logits", [0, 1, 50, 8_000_000])
def test_tiles_fit_their_budget(rows, columns, logits):
    height, width = tile_shape(rows, columns, logits)
    assert height * width <= max(1, logits)
    assert (height > 0 or rows == 0) and width > 0


def test_the_policy_scores_in_tiles_what_its_model_makes_whole():
    policy = text_policy(logits=LogitsConfig(tile_mib=0.001))
    assert isinstance(policy.model.lm_head, ScoringHead)
    assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
    batch = cut(text_samples(policy), [range(7)])[0]
    logits = policy.model(input_ids=batch.input_ids).logits  # causal, so padding on the right needs no mask
    want = scores_of_logits(logits.flatten(0, 1)[batch.rows], batch.targets, Readout(0.7))
    got = policy(batch, temperature=0.7)
    torch.testing.assert_close(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)


def test_a_wrapped_head_is_called_as_it_is():
    policy = text_policy(tied=False)
    batch = cut(text_samples(policy), [range(7)])[0]
    want = policy(batch)
    policy.model.set_output_embeddings(nn.Sequential(policy.model.lm_head))
    got = policy(batch)
    torch.testing.assert_close(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)


def test_a_family_that_changes_its_logits_is_refused():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    config = Gemma2Config(**sizes, num_key_value_heads=1, head_dim=8)
    with pytest.raises(ConfigError, match=r"'gemma2' changes its logits .*final_logit_softcapping: 30"):
        Policy(Gemma2ForCausalLM(config))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype, compiled):
    hidden, weight, targets = (tensor.detach().cuda() for tensor in inputs(dtype=dtype))
    hidden.requires_grad_(), weight.requires_grad_()
    readout = READOUTS["excluded"]
    got = score_tokens(hidden, weight, targets, readout, SMALL.model_copy(update={"compile": compiled}))
    want = scores_of_logits(hidden @ weight.T, targets, readout)
    torch.testing.assert_close(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)
    factors = torch.linspace(-2, 3, N, device="cuda")
    pairs = zip(
        torch.autograd.grad((factors * got.logprobs).sum(), (hidden, weight)),
        torch.autograd.grad((factors * want.logprobs).sum(), (hidden, weight)),
        strict=True,
    )
    for mine, theirs in pairs:
        tolerance = 1e-5 if dtype == torch.float32 else 0.05
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_tiles_are_the_same():
    hidden, weight, targets = inputs()
    compiled = SMALL.model_copy(update={"compile": True})
    got = score_tokens(hidden, weight, targets, READOUTS["excluded"], compiled)
    want = score_tokens(hidden, weight, targets, READOUTS["excluded"], SMALL)
    torch.testing.assert_close(got.logprobs, want.logprobs, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.entropy, want.entropy, rtol=0, atol=1e-5)
    assert torch.equal(got.top1, want.top1)
    for mine, theirs in zip(gradients(got, hidden, weight), gradients(want, hidden, weight), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
