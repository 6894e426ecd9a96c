"""Adapters: what learns, what engines get, and what peft makes of the files."""

from __future__ import annotations

import pytest
import torch

from rl.config.base import parse_config
from rl.config.learner import LoraConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError
from rl.learner.export import checkpoint_tensors, export_hf
from rl.models.lora import add_adapters
from rl.models.policy import Policy, load_policy
from tests.unit.learner.tiny import cut, from_folder, text_policy, text_samples, update, vision_policy, vision_samples

pytest.importorskip("peft", reason="the extra `lora` is not installed")

LORA = LoraConfig(rank=2, alpha=6.0)


def adapted(policy: Policy, config: LoraConfig = LORA) -> Policy:
    """With adapters that are not zero any more."""
    torch.manual_seed(7)
    add_adapters(policy, config)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    return policy


def logprobs(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return policy(*cut(text_samples(policy), [range(7)])).logprobs


def test_a_fresh_adapter_changes_nothing_and_alone_learns():
    policy = text_policy()
    before = logprobs(policy)
    assert add_adapters(policy, LORA) == sum(p.numel() for p in policy.parameters() if p.requires_grad)
    assert torch.equal(logprobs(policy), before)
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    # Two layers of q, k, v, o, gate, up, down, each with A and B.
    assert len(trained) == 2 * 7 * 2 and all("lora_" in name for name in trained)


def test_merged_weights_are_those_that_peft_merges():
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    ours, theirs = adapted(text_policy()), text_policy()
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    peft_model = get_peft_model(theirs.model, PeftConfig(r=2, lora_alpha=6.0, target_modules=targets))
    values = {f"base_model.model.{name}": tensor for name, tensor in ours.model.state_dict().items()}
    peft_model.load_state_dict(values)
    expected = peft_model.merge_and_unload().state_dict()
    merged = checkpoint_tensors(ours)
    assert merged.keys() == checkpoint_tensors(text_policy()).keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("made", [text_policy, vision_policy])
def test_the_plain_model_with_merged_weights_is_the_policy(made):
    policy, plain = adapted(made()), made()
    samples, images = (text_samples(plain), None) if made is text_policy else vision_samples(plain)
    (batch,) = cut(samples, [range(len(samples))], images)
    with torch.no_grad():
        start = plain(batch).logprobs
        plain.model.load_state_dict(checkpoint_tensors(policy), strict=False)
        got, expected = plain(batch).logprobs, policy(batch).logprobs
    assert (expected - start).abs().max() > 0.01
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("one_rank")
def test_a_step_trains_and_saves_the_adapter_alone(tmp_path):
    base, out, state = tmp_path / "base", tmp_path / "out", tmp_path / "state"
    text_policy().model.save_pretrained(base)
    strategy = from_folder(str(base), lora=LORA.model_dump())
    assert {id(p) for g in strategy.optimizer.param_groups for p in g["params"]} == {
        id(p) for name, p in strategy.policy.named_parameters() if "lora_" in name
    }
    update(strategy, cut(text_samples(strategy.policy), [range(7)]), 7)
    strategy.save(state, 1).result()
    saved = torch.distributed.checkpoint.FileSystemReader(state).read_metadata().state_dict_metadata
    parameters = [key for key in saved if key.startswith(("model.", "optimizer.state."))]
    assert len(parameters) == 28 * (1 + 3) and all("lora_" in key for key in parameters)  # value, two moments, step
    export_hf(strategy, base, out)()
    trained = logprobs(strategy.policy)
    assert (trained - logprobs(text_policy())).abs().max() > 1e-4
    torch.testing.assert_close(logprobs(load_policy(out)), trained, rtol=0, atol=1e-5)

    from peft import PeftModel

    with_adapter = PeftModel.from_pretrained(load_policy(base).model, str(out / "adapter"))
    torch.testing.assert_close(logprobs(Policy(with_adapter.base_model.model)), trained, rtol=0, atol=1e-5)

    restored = from_folder(str(base), lora=LORA.model_dump())
    assert restored.load(state) == 1
    assert torch.equal(logprobs(restored.policy), trained)


def test_targets():
    policy = vision_policy()
    add_adapters(policy, LoraConfig(targets=("*visual.merger.*", "*layers.0.self_attn.q_proj")))
    layers = {name.partition(".lora_")[0] for name, p in policy.model.named_parameters() if p.requires_grad}
    assert layers == {
        "model.visual.merger.linear_fc1",
        "model.visual.merger.linear_fc2",
        "model.language_model.layers.0.self_attn.q_proj",
    }
    everything = text_policy()
    add_adapters(everything, LoraConfig(targets=("*",)))
    assert not any("lm_head" in name for name, p in everything.named_parameters() if p.requires_grad)


def test_mistakes_are_errors():
    with pytest.raises(ConfigError, match=r"targets '\*q_prj' matches no linear layer"):
        add_adapters(text_policy(), LoraConfig(targets=("*q_prj",)))
    raw = {"model": "m", "out": "o", "steps": 1, "data": {"train": "d"}, "learner": {"lora": {}}}
    with pytest.raises(ConfigError, match=r"trainable .* would be ignored"):
        parse_config(TrainConfig, raw | {"trainable": ["projector"]})
