"""Hugging Face export of a sharded policy: weights under checkpoint names, with the tokenizer beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
import torch.distributed as dist

from rl.learner.fsdp import full_tensors
from rl.learner.strategy import Strategy
from rl.models.policy import Policy

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin")


def checkpoint_tensors(policy: Policy, strategy: Strategy | None = None) -> dict[str, torch.Tensor]:
    """Gathered parameters under the names that Hugging Face checkpoints and inference engines use; rank 0 gets them.

    transformers 5 renames some modules in memory; its own reverse mapping gives the names on disk. Tied copies are
    left out, as in a checkpoint. Collective: all ranks call it, and those other than 0 get an empty mapping.

    Args:
        strategy: what spreads the policy over ranks; None for a policy of this process alone.
    """
    from transformers.core_model_loading import revert_weight_conversion

    tensors = strategy.full_tensors() if strategy is not None else full_tensors(policy, to_host=True)
    if not tensors:
        return {}
    tied = getattr(policy.model, "_tied_weights_keys", None) or {}
    if policy.model.config.tie_word_embeddings:
        for name in list(tied):
            tensors.pop(name, None)
    return revert_weight_conversion(policy.model, tensors)


def export_hf(strategy: Strategy, source: str | Path, out: str | Path) -> None:
    """Write weights to `out`, and beside them config, tokenizer and processors of `source`; weights appear whole."""
    from safetensors.torch import save_file

    tensors = checkpoint_tensors(strategy.policy, strategy)
    if dist.get_rank() == 0:
        source, out = Path(source), Path(out)
        out.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if (
                file.is_file()
                and not file.name.endswith(_WEIGHTS)
                and file.suffix in {".json", ".jinja", ".txt", ".model"}
            ):
                shutil.copyfile(file, out / file.name)
        partial = out / "model.safetensors.partial"
        save_file({name: t.contiguous() for name, t in tensors.items()}, partial, metadata={"format": "pt"})
        partial.rename(out / "model.safetensors")
    dist.barrier()
