"""FSDP2 over gloo or NCCL: process group, sharding, optimiser, gradient clipping, full state dicts.

The same calls serve one CPU core and many GPUs; nothing else in the project touches `torch.distributed`.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim.lr_scheduler import LambdaLR

from rl.config.learner import FSDPConfig, LearnerConfig, OptimizerConfig
from rl.learner.muon import MuonAdamW
from rl.models.policy import Policy

_TIMEOUT = timedelta(minutes=10)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])


def init_ranks(rank: int, world_size: int, address: str, port: int, config: LearnerConfig) -> torch.device:
    """Join the learner's process group; returns the device of this rank."""
    torch.set_num_threads(config.threads)
    cuda = config.gpus_per_rank > 0
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=world_size,
        timeout=_TIMEOUT,
    )
    return device


def close_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def shard(policy: Policy, config: FSDPConfig, device: torch.device) -> None:
    """Apply FSDP2 in place. Parameters stay float32; `param_dtype` is what forward and backward compute in."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    precision = MixedPrecisionPolicy()
    if config.param_dtype != "float32":
        precision = MixedPrecisionPolicy(param_dtype=getattr(torch, config.param_dtype), reduce_dtype=torch.float32)
    policy.to(device)
    policy.vision_always = dist.get_world_size() > 1
    if config.wrap == "blocks":
        for block in _blocks(policy):
            fully_shard(block, mesh=mesh, mp_policy=precision, reshard_after_forward=config.reshard_after_forward)
    fully_shard(policy, mesh=mesh, mp_policy=precision, reshard_after_forward=False)


def _blocks(policy: nn.Module) -> list[nn.Module]:
    """The repeated transformer blocks: the members of every ModuleList of like modules."""
    found: list[nn.Module] = []
    for module in policy.modules():
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1:
            found.extend(child for child in module if any(True for _ in child.parameters()))
    return found


def make_optimizer(policy: nn.Module, config: OptimizerConfig, total_steps: int) -> tuple[torch.optim.AdamW, LambdaLR]:
    """The optimizer over the trained parameters and its learning-rate schedule."""
    trained = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    optimizer: torch.optim.AdamW
    if config.name == "muon":
        # A row of an embedding is a vector by itself: it gets AdamW, as do norms, biases and the patch convolution.
        matrices = {name: p for name, p in trained.items() if p.dim() == 2 and not _is_embedding(name)}
        optimizer = MuonAdamW(
            matrices.values(),
            [p for name, p in trained.items() if name not in matrices],
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
        )
    else:
        optimizer = torch.optim.AdamW(
            trained.values(),
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            foreach=True,
        )
    return optimizer, LambdaLR(optimizer, lambda step: lr_factor(step, total_steps, config))


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head"))


def lr_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Share of the base learning rate at optimizer step `step`, counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    shape = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.final_lr_fraction + (1 - config.final_lr_fraction) * shape


def clip_gradients(policy: nn.Module, max_norm: float) -> float:
    """Scale gradients to at most `max_norm`; returns the global norm before clipping."""
    norm = nn.utils.clip_grad_norm_([p for p in policy.parameters() if p.grad is not None], max_norm)
    full = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return float(full)


def all_reduce_sum(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sum each value over the ranks; every rank must pass the same keys."""
    if dist.get_world_size() == 1:
        return dict(values)
    keys = sorted(values)
    tensor = torch.tensor([values[key] for key in keys], dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(keys, tensor.tolist(), strict=True))


def full_tensors(policy: nn.Module, to_host: bool = False) -> dict[str, torch.Tensor]:
    """Every parameter, gathered, under its name inside the Hugging Face model. Collective: all ranks call it.

    With `to_host` rank 0 gets them in host memory, the others nothing; one whole tensor at a time is on a device.
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
            result[name] = full.detach().cpu()
    return result
