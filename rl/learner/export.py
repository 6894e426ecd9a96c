"""Hugging Face export of a sharded policy: weights under checkpoint names, with the tokenizer beside them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from rl.learner.fsdp import full_tensors
from rl.learner.strategy import Strategy
from rl.models.files import save_weights
from rl.models.lora import merged, save_adapter
from rl.models.policy import Policy

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin")


def checkpoint_tensors(policy: Policy, strategy: Strategy | None = None) -> dict[str, torch.Tensor]:
    """Gathered parameters under the names that Hugging Face checkpoints and inference engines use; rank 0 gets them.

    Adapters are merged into the weights that they adapt.

    transformers 5 renames some modules in memory; its own reverse mapping gives the names on disk. Tied copies are
    left out, as in a checkpoint. Collective: all ranks call it, and those other than 0 get an empty mapping.

    Args:
        strategy: what spreads the policy over ranks; None for a policy of this process alone.
    """
    tensors = strategy.full_tensors() if strategy is not None else full_tensors(policy, to_host=True)
    return _on_disk(policy, tensors) if tensors else {}


def _on_disk(policy: Policy, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    from transformers.core_model_loading import revert_weight_conversion

    plain = merged(policy.model, tensors)
    tied = getattr(policy.model, "_tied_weights_keys", None) or {}
    if policy.model.config.tie_word_embeddings:
        for name in list(tied):
            plain.pop(name, None)
    return revert_weight_conversion(policy.model, plain)


def export_hf(strategy: Strategy, source: str | Path, out: str | Path) -> Callable[[], None]:
    """Gather the weights; returns what writes them to `out`, beside config, tokenizer and processors of `source`.

    The gathering is collective, the writing is rank 0's alone and may be done by a thread: the weights are a copy, and
    appear in the folder whole. Adapters are written by themselves, too, to `out/adapter`.
    """
    policy, source, out = strategy.policy, Path(source), Path(out)
    tensors = strategy.full_tensors()

    def write() -> None:
        if not tensors:
            return
        out.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if (
                file.is_file()
                and not file.name.endswith(_WEIGHTS)
                and file.suffix in {".json", ".jinja", ".txt", ".model"}
            ):
                shutil.copyfile(file, out / file.name)
        save_weights(_on_disk(policy, tensors), out / "model.safetensors")
        save_adapter(policy.model, tensors, out / "adapter", source)

    return write
