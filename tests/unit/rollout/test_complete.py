"""A push is complete if it holds what the learner would export, and no less by a single tensor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rl.config.learner import LoraConfig
from rl.errors import SyncError
from rl.learner.export import checkpoint_tensors
from rl.models.lora import add_adapters
from rl.models.policy import load_policy, skeleton
from rl.rollout.complete import check_complete, complete_sets
from tests.unit.learner.tiny import text_policy, vision_policy


def _rewrite(folder: Path, names: dict[str, str], more: dict[str, torch.Tensor]) -> None:
    """Rename what begins so in the folder's file, and add to it."""
    file = folder / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(file).items():
        old = next((old for old in names if name.startswith(old)), "")
        tensors[names.get(old, "") + name.removeprefix(old)] = tensor
    save_file(tensors | more, file, metadata={"format": "pt"})


def _older_vision(folder: Path) -> None:
    """A Qwen2.5-VL with the names that its files had at first, as all of them on the hub have."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    text |= dict(num_key_value_heads=1, rope_parameters={"rope_type": "default", "mrope_section": [2, 1, 1]})
    vision = dict(depth=2, hidden_size=16, intermediate_size=24, num_heads=2, out_hidden_size=16, patch_size=4)
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=30, tie_word_embeddings=False)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    _rewrite(folder, {"model.language_model.": "model.", "model.visual.": "visual."}, {})
    assert {name.split(".")[0] for name in load_file(folder / "model.safetensors")} == {"model", "visual", "lm_head"}


@pytest.fixture(params=["tied", "tied, head in the file", "untied", "buffers in the file", "vision", "older vision"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind = request.param
    if kind == "older vision":
        _older_vision(tmp_path)
        return tmp_path
    policy = vision_policy() if kind == "vision" else text_policy(tied=kind != "untied")
    policy.model.save_pretrained(tmp_path)
    if kind == "tied, head in the file":
        _rewrite(tmp_path, {}, {"lm_head.weight": torch.zeros(40, 16)})
    if kind == "buffers in the file":
        _rewrite(tmp_path, {}, {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)})
    return tmp_path


@pytest.mark.parametrize("start", [load_policy, skeleton])  # `skeleton`: a learner that is built on the meta device
def test_what_the_learner_exports_is_complete_and_nothing_less(folder: Path, start: object) -> None:
    policy = start(folder)  # type: ignore[operator]
    if start is load_policy:
        names = list(checkpoint_tensors(policy))
    else:
        policy.to_empty(device="cpu")
        policy.model.tie_weights()
        names = list(checkpoint_tensors(policy))
    complete = complete_sets(folder)
    check_complete(names, complete)
    assert len(names) > 10
    for left_out in names:
        with pytest.raises(SyncError, match=rf"leaves out 1 of the model's tensors: {left_out}; "):
            check_complete([name for name in names if name != left_out], complete)


def test_merged_adapters_are_complete(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="the extra `lora` is not installed")
    vision_policy().model.save_pretrained(tmp_path)
    policy = load_policy(tmp_path)
    add_adapters(policy, LoraConfig(rank=2, targets=("*_proj",)))
    check_complete(checkpoint_tensors(policy), complete_sets(tmp_path))


def test_files_that_are_not_read_leave_the_names_of_the_model(tmp_path: Path) -> None:
    text_policy().model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model.bin")
    (complete,) = complete_sets(tmp_path)
    assert complete == checkpoint_tensors(text_policy()).keys()
    with pytest.raises(SyncError, match=r"leaves out 20 of the model's tensors: .*, \.\.\.; the engine would go on"):
        check_complete([], [complete])
