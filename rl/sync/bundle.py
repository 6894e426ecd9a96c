"""Weights of one version in one buffer: what the learner publishes and every engine applies.

The bundle travels through Ray's object store: shared memory on a host (engines read it in place), one copy per node
across hosts. Staging costs one memory copy and happens while engines generate; only applying pauses them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from rl.records import WeightBundle

_ALIGN = 64
"""Byte alignment of every tensor, so that views of any dtype are aligned."""


def pack(tensors: Mapping[str, torch.Tensor], version: int) -> WeightBundle:
    """Copy tensors (any device) into one buffer on the host."""
    offsets, total = [], 0
    for tensor in tensors.values():
        offsets.append(total)
        total += -(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN
    buffer = torch.empty(total, dtype=torch.uint8)
    for offset, tensor in zip(offsets, tensors.values(), strict=True):
        size = tensor.numel() * tensor.element_size()
        buffer[offset : offset + size].view(tensor.dtype).copy_(tensor.detach().reshape(-1))
    return WeightBundle(
        version=version,
        names=tuple(tensors),
        dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()),
        shapes=tuple(tuple(tensor.shape) for tensor in tensors.values()),
        offsets=tuple(offsets),
        buffer=buffer.numpy(),
    )


def unpack(bundle: WeightBundle) -> dict[str, torch.Tensor]:
    """Copies of the bundle's tensors."""
    flat = torch.from_numpy(np.array(bundle.buffer))
    result = {}
    for name, dtype_name, shape, offset in zip(bundle.names, bundle.dtypes, bundle.shapes, bundle.offsets, strict=True):
        dtype = getattr(torch, dtype_name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        result[name] = flat[offset : offset + size].view(dtype).view(shape)
    return result
