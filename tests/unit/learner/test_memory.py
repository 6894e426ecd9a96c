"""Settings that save memory: what they must not change, and that they do what they are for."""

from __future__ import annotations

import pytest
import torch

from rl.errors import ConfigError
from rl.learner.activations import recompute
from rl.learner.fsdp import blocks, full_tensors
from rl.learner.meta import materialise
from rl.learner.step import optimizer_step
from rl.models.policy import skeleton
from tests.unit.learner.tiny import (
    OPTIMIZER,
    cut,
    from_folder,
    gspo_loss,
    prepare,
    text_policy,
    text_samples,
    vision_policy,
    vision_samples,
)

pytestmark = pytest.mark.usefixtures("one_rank")
PARTS = [[0, 2, 4, 6], [1, 3, 5]]
CPU = torch.device("cpu")


def gradients(**learner) -> dict[str, torch.Tensor]:
    policy = text_policy()
    strategy = prepare(policy, **learner)
    optimizer_step(strategy, cut(text_samples(policy), PARTS), gspo_loss(7), clip_norm=1e9)
    return {name: p.grad.full_tensor() for name, p in policy.named_parameters()}


def forwards(checkpointing: bool) -> int:
    """How often the first block runs in one update of two micro-batches."""
    policy = vision_policy()
    strategy = prepare(policy, activation_checkpointing=checkpointing)
    count = []
    blocks(policy)[0].register_forward_pre_hook(lambda *_: count.append(1))
    samples, images = vision_samples(policy)
    optimizer_step(strategy, cut(samples, [[0], [1, 2]], images), gspo_loss(3), OPTIMIZER.clip_norm)
    return len(count)


def test_recomputed_blocks_run_twice_and_give_the_same_gradients_bit_for_bit():
    assert forwards(True) == 2 * forwards(False)
    plain, recomputed = gradients(), gradients(activation_checkpointing=True)
    assert all(torch.equal(recomputed[name], gradient) for name, gradient in plain.items())


def test_recomputation_saves_activations():
    """Bytes that autograd keeps between forward and backward."""

    def kept(checkpointing: bool) -> int:
        policy = text_policy(layers=4)
        recompute(blocks(policy) if checkpointing else ())
        (batch,) = cut(text_samples(policy), [range(7)])
        sizes = {}
        own = {p.untyped_storage().data_ptr() for p in policy.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in own:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            policy(batch).logprobs.sum()
        return sum(sizes.values())

    assert kept(True) < 0.6 * kept(False)


def test_bfloat16_computes_within_its_precision_over_float32_masters():
    """8 bits of mantissa: 0.4 % a rounding; some tens of them in a row leave a few per cent of a gradient."""
    policies = [text_policy(), text_policy()]
    exact, half = prepare(policies[0]), prepare(policies[1], fsdp={"param_dtype": "bfloat16"})
    (batch,) = cut(text_samples(policies[0]), [range(7)])
    with torch.no_grad():
        ours, theirs = half.policy(batch).logprobs, exact.policy(batch).logprobs
    assert ours.dtype == torch.float32
    assert 1e-4 < (ours - theirs).abs().max() < 0.05  # nats; the lower bound: it is not float32 in disguise
    grads, exact_grads = gradients(fsdp={"param_dtype": "bfloat16"}), gradients()
    for name, gradient in exact_grads.items():
        assert grads[name].dtype == torch.float32
        assert (grads[name] - gradient).norm() < 0.1 * gradient.norm(), name
    before = {f"model.{name}": tensor.clone() for name, tensor in full_tensors(policies[1]).items()}
    optimizer_step(half, cut(text_samples(policies[1]), PARTS), gspo_loss(7), OPTIMIZER.clip_norm)
    for name, parameter in policies[1].named_parameters():
        assert parameter.dtype == torch.float32
        assert all(value.dtype == torch.float32 for value in half.optimizer.state[parameter].values())
        assert not torch.equal(parameter.full_tensor(), before[name])


def test_float32_masters_keep_steps_that_bfloat16_would_round_away():
    policy = text_policy()
    strategy = prepare(policy, fsdp={"param_dtype": "bfloat16"}, optimizer={"lr": 1e-5, "eps": 1e-8, "warmup_steps": 0})
    norm = policy.model.model.norm.weight  # ones, whose neighbours in bfloat16 are 1 - 2^-8 and 1 + 2^-7
    for _ in range(3):
        optimizer_step(strategy, cut(text_samples(policy), PARTS), gspo_loss(7), OPTIMIZER.clip_norm)
    moved = (norm.full_tensor() - 1).abs()
    assert 1e-6 < moved.max() < 2**-9


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("made", [text_policy, vision_policy])
def test_a_model_built_on_meta_is_the_model_of_the_folder(tmp_path, made, offload):
    plain = made()
    plain.model.save_pretrained(tmp_path)
    policy = from_folder(str(tmp_path), fsdp={"meta_init": True, "cpu_offload": offload}).policy
    expected = plain.model.state_dict()
    got = full_tensors(policy)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    buffers = dict(plain.named_buffers())
    assert any("inv_freq" in name for name in buffers)
    for name, buffer in policy.named_buffers():
        assert torch.equal(buffer, buffers[name]) and buffer.dtype == buffers[name].dtype, name
    assert policy.model.get_output_embeddings().weight is policy.model.get_input_embeddings().weight
    assert not policy.model.training
    samples, images = (text_samples(plain), None) if made is text_policy else vision_samples(plain)
    (batch,) = cut(samples, [range(len(samples))], images)
    with torch.no_grad():
        assert torch.equal(policy(batch).logprobs, plain(batch).logprobs)


def test_the_skeleton_takes_no_memory(tmp_path):
    text_policy().model.save_pretrained(tmp_path)
    policy = skeleton(tmp_path)
    assert all(tensor.is_meta for tensor in (*policy.parameters(), *policy.buffers()))


def test_a_tensor_that_is_no_buffer_is_refused(tmp_path):
    source = text_policy()
    source.model.save_pretrained(tmp_path)
    policy = skeleton(tmp_path)
    policy.model.model.norm.table = torch.zeros(3, device="meta")
    with pytest.raises(ConfigError, match=r"model\.model\.norm\.table .*meta_init: false"):
        materialise(policy, source, CPU, CPU)
