"""FSDP2 as a `Strategy`: sharding, gradient sums and clipping, whole tensors. The same calls serve CPUs and GPUs."""

from __future__ import annotations

import math
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from rl.config.learner import FSDPConfig, LearnerConfig
from rl.learner import checkpoint
from rl.learner.activations import recompute
from rl.learner.collectives import match_collectives
from rl.learner.meta import materialise
from rl.learner.optimizer import make_optimizer
from rl.models.policy import Policy


class Fsdp2:
    """See `rl.learner.strategy.Strategy`. Parameters are sharded in place."""

    def __init__(
        self,
        policy: Policy,
        config: LearnerConfig,
        total_steps: int,
        device: torch.device,
        source: Policy | None = None,
    ) -> None:
        if config.activation_checkpointing:
            recompute(blocks(policy))
        shard(policy, config.fsdp, device, source)
        self.policy = policy
        self.optimizer: torch.optim.Optimizer
        self.optimizer, self.schedule = make_optimizer(policy, config.optimizer, total_steps)

    def begin(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        assert isinstance(self.policy, FSDPModule)
        self.policy.set_requires_gradient_sync(last)
        # FSDP averages gradients over ranks; the interface asks for their sum.
        (loss * dist.get_world_size()).backward()

    def finish(self, clip_norm: float) -> float:
        _fill_missing_gradients(self.policy)
        gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
        total = nn.utils.get_total_norm(gradients)
        norm = float(total.full_tensor() if hasattr(total, "full_tensor") else total)
        if not math.isfinite(norm):
            self.begin()
            return norm
        if norm > clip_norm:
            torch._foreach_mul_(gradients, clip_norm / norm)
        self.optimizer.step()
        self.schedule.step()
        return norm

    def full_tensors(self) -> dict[str, torch.Tensor]:
        return full_tensors(self.policy, to_host=True)

    def save(self, folder: Path, version: int, background: bool = False) -> Future[Any]:
        return checkpoint.write(folder, self._parts(version), background=background)

    def load(self, folder: Path) -> int:
        parts = checkpoint.read(folder, self._parts(0))
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        set_state_dict(
            self.policy,
            self.optimizer,
            model_state_dict=parts["model"],
            optim_state_dict=parts["optimizer"],
            options=StateDictOptions(ignore_frozen_params=True, strict=False),
        )
        for group, kept in zip(self.optimizer.param_groups, settings, strict=True):  # other dicts than before
            group.update(kept)
        checkpoint.go_to(self.schedule, int(parts["schedule"]["last_epoch"]))
        return int(parts["version"])

    def _parts(self, version: int) -> dict[str, Any]:
        options = StateDictOptions(ignore_frozen_params=True)
        model, optimizer = get_state_dict(self.policy, self.optimizer, options=options)
        # Second names of tied parameters, and those whose first name is a frozen one.
        known = {name for name, _ in self.policy.named_parameters(remove_duplicate=False)}
        trained = {name for name, parameter in self.policy.named_parameters() if parameter.requires_grad}
        model = {name: tensor for name, tensor in model.items() if name in trained or name not in known}
        return checkpoint.parts_of(model, optimizer, self.schedule, version)


def shard(policy: Policy, config: FSDPConfig, device: torch.device, source: Policy | None = None) -> None:
    """Apply FSDP2 in place. Parameters stay float32; `param_dtype` is what forward and backward compute in.

    Args:
        source: where rank 0 takes the numbers of a policy on the meta device from.
    """
    precision = MixedPrecisionPolicy()
    if config.param_dtype != "float32":
        precision = MixedPrecisionPolicy(param_dtype=getattr(torch, config.param_dtype), reduce_dtype=torch.float32)
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (dist.get_world_size(),)),
        "mp_policy": precision,
        "offload_policy": CPUOffloadPolicy(pin_memory=device.type == "cuda") if config.cpu_offload else OffloadPolicy(),
    }
    on_meta = any(parameter.is_meta for parameter in policy.parameters())
    if not on_meta:
        policy.to(device)
    match_collectives(policy)
    if config.wrap == "blocks":
        for block in blocks(policy):
            fully_shard(block, reshard_after_forward=config.reshard_after_forward, **settings)
    fully_shard(policy, reshard_after_forward=False, **settings)
    if on_meta:
        materialise(policy, source, device, torch.device("cpu") if config.cpu_offload else device)


def blocks(policy: nn.Module) -> list[nn.Module]:
    """The repeated transformer blocks: the members of every ModuleList of like modules."""
    found: list[nn.Module] = []
    for module in policy.modules():
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1:
            found.extend(child for child in module if any(True for _ in child.parameters()))
    return found


def _fill_missing_gradients(policy: nn.Module) -> None:
    """Give parameters that no micro-batch used, as the vision tower without images, the zero gradient that they have.

    Optimizers pass over a missing gradient but go on with their momentum under a zero one. With several ranks the tower
    always runs and has zeros, so without this the update would depend on the number of ranks.
    """
    for parameter in policy.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def full_tensors(policy: nn.Module, to_host: bool = False) -> dict[str, torch.Tensor]:
    """Every parameter, gathered, under its name inside the Hugging Face model. Collective: all ranks call it.

    With `to_host` rank 0 gets copies in host memory, the others nothing; one whole tensor at a time is on a device.
    """
    model = policy.model
    assert isinstance(model, nn.Module)
    rank = dist.get_rank() if dist.is_initialized() else 0
    result = {}
    for name, tensor in model.state_dict().items():
        full = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if not to_host:
            result[name] = full.detach()
        elif rank == 0:
            result[name] = full.detach().to("cpu", copy=full is tensor)
    return result
