"""A packed row gives the loss and gradients of its sequences by themselves, and nothing passes between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rl.batch.sequences import ImageTable, MicroBatch, Segments, TrainingSample, collate, concatenate
from rl.config.learner import LearnerConfig
from rl.errors import ConfigError
from rl.learner.batches import MicroBatcher
from rl.models.attention import attend
from rl.models.policy import Policy
from tests.unit.learner.tiny import cut, group_samples, gspo_loss, text_policy, text_samples, vision_policy

Case = tuple[Policy, list[TrainingSample], ImageTable]


def windowed_policy() -> Policy:
    """A Mistral whose tokens see four positions, fewer than any sequence has."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    config = MistralConfig(**sizes, num_key_value_heads=1, sliding_window=4, initializer_range=0.3)
    return Policy(MistralForCausalLM(config).eval())


def case(name: str) -> Case:
    if name == "vision":
        policy = vision_policy()
        return policy, *group_samples(policy)
    policy = text_policy() if name == "text" else windowed_policy()
    return policy, text_samples(policy), ImageTable()


def loss_and_gradients(policy: Policy, batches: Sequence[MicroBatch], total: int) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    loss = torch.stack([gspo_loss(total)(batch, policy(batch)) for batch in batches]).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in policy.named_parameters() if p.grad is not None}
    return gradients | {"loss": loss.detach()}


@pytest.mark.parametrize("name", ["text", "windowed", "vision"])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_loss_and_gradients_are_those_of_single_sequences(name, count):
    policy, samples, images = case(name)
    chosen = list(range(count))
    alone = loss_and_gradients(policy, cut(samples, [[i] for i in chosen], images), count)
    packed = loss_and_gradients(policy, [concatenate(samples, chosen, images)], count)
    padded = loss_and_gradients(policy, [collate(samples, chosen, 0, images)], count)
    assert packed.keys() == alone.keys() == padded.keys()
    assert (name == "vision") == any("deepstack" in key for key in packed)
    for key, expected in alone.items():
        torch.testing.assert_close(packed[key], expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(padded[key], expected, rtol=0, atol=1e-5)
    assert max(float(tensor.abs().max()) for tensor in alone.values()) > 1e-2, "the bound must mean something"


@pytest.mark.parametrize("name", ["text", "windowed", "vision"])
def test_the_model_of_the_library_gives_the_same_logprobs(name):
    """Stock attention and positions that the model works out by itself, one sequence at a time."""
    policy, samples, images = case(name)
    got = policy(concatenate(samples, range(6), images))
    policy.model.set_attn_implementation("eager")
    for i, sample in enumerate(samples[:6]):
        ids = torch.from_numpy(sample.input_ids)[None]
        shown: dict[str, Any] = {}
        if sample.image_keys:
            pixels = images.batch(sample.image_keys)
            shown = {"pixel_values": pixels.pixel_values, "image_grid_thw": pixels.grid_thw}
            shown["mm_token_type_ids"] = (ids == policy.model.config.image_token_id).int()
        logp = torch.log_softmax(policy.model(input_ids=ids, **shown).logits[0].float(), -1)
        where = torch.from_numpy(np.flatnonzero(sample.trained) + sample.prompt_length)
        expected = logp[where - 1, ids[0, where]]
        mine = got.logprobs[torch.arange(len(got.logprobs))[cut_index(samples, i)]]
        torch.testing.assert_close(mine, expected, rtol=0, atol=1e-5)


def cut_index(samples: Sequence[TrainingSample], i: int) -> slice:
    """Where the trained tokens of sample `i` stand among those of all."""
    start = sum(sample.trained_tokens for sample in samples[:i])
    return slice(start, start + samples[i].trained_tokens)


@pytest.mark.parametrize("name", ["text", "windowed", "vision"])
@pytest.mark.parametrize("changed", [0, 2, 5])
def test_other_sequences_do_not_see_a_change(name, changed):
    policy, samples, images = case(name)
    before = policy(concatenate(samples, range(6), images))
    other = list(samples)
    ids = samples[changed].input_ids.copy()
    text = (ids >= 3) & (ids < 28)
    ids[text] = 3 + (ids[text] + 4) % 25
    other[changed] = replace(samples[changed], input_ids=ids)
    after = policy(concatenate(other, range(6), images))
    own = torch.zeros(len(before.logprobs), dtype=torch.bool)
    own[cut_index(samples, changed)] = True
    assert torch.equal(after.logprobs[~own], before.logprobs[~own])
    assert torch.equal(after.entropy[~own], before.entropy[~own])
    assert (after.logprobs[own] - before.logprobs[own]).abs().max() > 1e-2


def test_an_image_is_seen_by_its_own_sequences_alone():
    policy, samples, images = case("vision")
    before = policy(concatenate(samples, range(6), images)).logprobs
    repainted = ImageTable()
    for key in ("wide", "small"):
        pixels, grid = images._pixels[key]
        repainted.add(key, -pixels if key == "wide" else pixels, grid)
    after = policy(concatenate(samples, range(6), repainted)).logprobs
    for i, sample in enumerate(samples):
        part = cut_index(samples, i)
        assert torch.equal(after[part], before[part]) == ("wide" not in sample.image_keys)


def attention_by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int) -> torch.Tensor:
    """[L, heads, D] from [heads, L, D]: softmax over the last `window` positions, one query at a time."""
    heads, length, width = query.shape
    group = heads // key.shape[0]
    rows = []
    for t in range(length):
        start = max(0, t + 1 - window)
        seen = slice(start, t + 1)
        weights = [torch.softmax(key[h // group, seen] @ query[h, t] / width**0.5, 0) for h in range(heads)]
        rows.append(torch.stack([weights[h] @ value[h // group, seen] for h in range(heads)]))
    return torch.stack(rows)


@pytest.mark.parametrize("window", [None, 3, 100])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_attention_of_segments(window, device):
    """On a GPU in half precision this is the variable-length kernel."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    lengths = (5, 1, 7)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 13, 16, generator=generator) for heads in (4, 2, 2))
    expected = torch.cat(
        [
            attention_by_hand(*part, window or 13)
            for part in zip(*(tensor[0].split(lengths, 1) for tensor in (query, key, value)), strict=True)
        ]
    )
    dtype, tolerance = (torch.bfloat16, 2e-2) if device == "cuda" else (torch.float32, 1e-5)
    segments = Segments(lengths, torch.tensor([0, 5, 6, 13], dtype=torch.int32, device=device))
    moved = [tensor.to(device, dtype) for tensor in (query, key, value)]
    got, _ = attend(torch.nn.Identity(), *moved, None, sliding_window=window, segments=segments)
    torch.testing.assert_close(got[0].float().cpu(), expected, rtol=0, atol=tolerance)


def other_family(name: str) -> Any:
    import transformers

    sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    heads = dict(num_attention_heads=2, num_key_value_heads=1)
    config = {
        "mamba": lambda: transformers.MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2),
        "rwkv": lambda: transformers.RwkvConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2),
        "lfm2": lambda: transformers.Lfm2Config(**sizes, **heads, layer_types=["conv", "full_attention"]),
        "bloom": lambda: transformers.BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2),
        "gemma2": lambda: transformers.Gemma2Config(**sizes, **heads, head_dim=8, final_logit_softcapping=None),
        "gpt_oss": lambda: transformers.GptOssConfig(**sizes, **heads, head_dim=8, num_local_experts=2),
    }[name]()
    return transformers.AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("mamba", "layers of linear_attention"),
        ("rwkv", "recurrent or convolutional"),
        ("lfm2", "layers of conv"),
        ("bloom", "attention of its own"),
        ("gemma2", "caps attention scores"),
        ("gpt_oss", "attention sinks"),
    ],
)
def test_families_that_packing_would_get_wrong_are_refused(family, why):
    policy = Policy(other_family(family))
    with pytest.raises(ConfigError, match=rf"{family} .*{why}.*learner\.packing to false"):
        MicroBatcher(LearnerConfig(packing=True), policy, 0, torch.device("cpu"))
    with pytest.raises(ConfigError, match=why):
        policy(concatenate(text_samples(text_policy()), [0, 1], None))


def test_a_layer_that_asks_for_more_than_the_kernels_have_is_refused():
    tensor = torch.zeros(1, 1, 2, 4)
    with pytest.raises(ConfigError, match="softcap"):
        attend(SimpleNamespace(), tensor, tensor, tensor, None, softcap=30.0)  # type: ignore[arg-type]
