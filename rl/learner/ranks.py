"""The learner's process group over gloo or NCCL: joining it, leaving it, and sums of plain numbers over its ranks."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist

from rl.config.learner import LearnerConfig
from rl.errors import DataError

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
        # Gloo beside NCCL: offloaded gradients and the staging of checkpoints live in host memory.
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        init_method=f"tcp://{address}:{port}",
        rank=rank,
        world_size=world_size,
        timeout=_TIMEOUT,
    )
    return device


def close_ranks() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sum each value over the ranks; every rank must pass the same keys."""
    if dist.get_world_size() == 1:
        return dict(values)
    keys = sorted(values)
    tensor = torch.tensor([values[key] for key in keys], dtype=torch.float64, device=device)
    dist.all_reduce(tensor)
    return dict(zip(keys, tensor.tolist(), strict=True))


def all_gather_values(values: torch.Tensor) -> torch.Tensor:
    """The values [n] of all ranks in one tensor, in the order of ranks; n may differ between them."""
    if dist.get_world_size() == 1:
        return values
    counts = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([values.numel()], device=values.device))
    width = max(int(count) for count in counts)
    parts = [values.new_zeros(width) for _ in counts]
    dist.all_gather(parts, torch.nn.functional.pad(values, (0, width - values.numel())))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def most_over_ranks(count: int) -> int:
    """The largest number of micro-batches of any rank.

    Raises:
        DataError: a rank, this one or another, has none; all ranks raise it, so none is left waiting for the others.
    """
    counts = torch.tensor([count, -count], device=_scalar_device())
    if dist.get_world_size() > 1:
        dist.all_reduce(counts, op=dist.ReduceOp.MAX)
    most, least = int(counts[0]), -int(counts[1])
    if least < 1:
        raise DataError(
            f"an update has a rank without a sequence to train on (this one has {count} micro-batches, the busiest "
            f"{most}): a rank with nothing to do can't take part in the collectives of a step; give every rank a "
            "sequence, with larger batches or fewer learner.ranks"
        )
    return most


def _scalar_device() -> str:
    return "cuda" if "nccl" in dist.get_backend() else "cpu"
