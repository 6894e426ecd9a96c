"""Weights of one version in one buffer: what the learner publishes and every engine applies.

Staging is a copy of the weights, made while engines generate; only applying pauses them. The layout is the same on
every transport, so that the checksum of a version is, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from rl.records import WeightBundle
from rl.sync.checksum import HostChecksum, block_checksum

_ALIGN = 64
"""Byte alignment of every tensor, so that views of any dtype are aligned."""
_PIECE = 1 << 19
"""Bytes copied at a time: what a core's cache of 1 MiB holds twice."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each tensor lies in a buffer; the fields are those of a `WeightBundle`."""

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    size: int
    """Bytes of the buffer."""

    def bundle(self, version: int, buffer: np.ndarray | torch.Tensor, checksum: str = "") -> WeightBundle:
        return WeightBundle(version, self.names, self.dtypes, self.shapes, self.offsets, buffer, checksum)


def layout_of(tensors: Mapping[str, torch.Tensor]) -> Layout:
    """Tensors one after another, each at the next multiple of 64 bytes."""
    offsets, total = [], 0
    for tensor in tensors.values():
        offsets.append(total)
        total += _padded(tensor)
    return Layout(
        names=tuple(tensors),
        dtypes=tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()),
        shapes=tuple(tuple(tensor.shape) for tensor in tensors.values()),
        offsets=tuple(offsets),
        size=total,
    )


def write(tensors: Mapping[str, torch.Tensor], layout: Layout, buffer: torch.Tensor) -> str:
    """Copy tensors (any device) to their places in uint8 [layout.size], and zeros to the gaps; returns the checksum."""
    assert buffer.numel() == layout.size
    on_host, total = buffer.device.type == "cpu", HostChecksum()
    for offset, tensor in zip(layout.offsets, map(torch.Tensor.detach, tensors.values()), strict=True):
        end, stop = offset + tensor.numel() * tensor.element_size(), offset + _padded(tensor)
        if on_host and tensor.device.type == "cpu" and tensor.is_contiguous():
            _sum_and_copy(tensor.view(-1).view(torch.uint8).numpy(), buffer.numpy()[offset:end], total)
        else:
            place = buffer[offset:end]
            place.view(tensor.dtype).view(tensor.shape).copy_(tensor)
            if on_host:
                total.update(place.numpy())
        if end < stop:
            gap = buffer[end:stop].zero_()
            if on_host:
                total.update(gap.numpy())
    return total.text() if on_host else block_checksum(buffer)


def _sum_and_copy(source: np.ndarray, target: np.ndarray, total: HostChecksum) -> None:
    """Copy a piece while the cache still holds it from its sum: a pass of its own costs half a copy more."""
    for start in range(0, len(source), _PIECE):
        piece = source[start : start + _PIECE]
        total.update(piece)
        target[start : start + _PIECE] = piece


def pack(tensors: Mapping[str, torch.Tensor], version: int) -> WeightBundle:
    """Copy tensors (any device) into one new buffer on the host."""
    layout = layout_of(tensors)
    buffer = torch.empty(layout.size, dtype=torch.uint8)
    return layout.bundle(version, buffer.numpy(), write(tensors, layout, buffer))


def views(bundle: WeightBundle) -> dict[str, torch.Tensor]:
    """The bundle's tensors, in its own memory: to be read, and not to be kept."""
    flat = _flat(bundle.buffer)
    result = {}
    for name, dtype_name, shape, offset in zip(bundle.names, bundle.dtypes, bundle.shapes, bundle.offsets, strict=True):
        dtype = getattr(torch, dtype_name)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        result[name] = flat[offset : offset + size].view(dtype).view(shape)
    return result


def unpack(bundle: WeightBundle) -> dict[str, torch.Tensor]:
    """Copies of the bundle's tensors."""
    return {name: tensor.clone() for name, tensor in views(bundle).items()}


def _padded(tensor: torch.Tensor) -> int:
    return -(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN


def _flat(buffer: np.ndarray | torch.Tensor) -> torch.Tensor:
    if isinstance(buffer, torch.Tensor):
        return buffer
    with warnings.catch_warnings():
        # It may be read-only shared memory; it is only read here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(buffer)
