"""Token sequences ready for training, and the micro-batches made of them: packed into one row, or padded to several.

A micro-batch addresses its trained tokens by flat row indices, so losses see one flat `[N]` axis of tokens and know
neither padding nor packing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One prompt with one response, `L = P + R` tokens.

    Example: prompt of 3 ids, response of 2: `input_ids` has 5 entries, `prompt_length` is 3, and `trained` has 2.
    """

    input_ids: np.ndarray
    """int64 [L]: prompt (image placeholders expanded) followed by the response."""
    prompt_length: int
    position_ids: np.ndarray
    """int64 [3, L]: temporal, height and width positions (M-RoPE); three equal rows for text."""
    trained: np.ndarray
    """bool [R]: response tokens that the policy wrote; tokens of the environment are False."""
    image_keys: tuple[str, ...]
    """Digests of the images, in the order of their placeholders."""

    @property
    def length(self) -> int:
        return len(self.input_ids)

    @property
    def trained_tokens(self) -> int:
        return int(self.trained.sum())


@dataclass(frozen=True, slots=True)
class PixelBatch:
    """The distinct images of a micro-batch, as the model's image processor made them."""

    pixel_values: torch.Tensor
    """float32 [patches, patch_dim], images one after another."""
    grid_thw: torch.Tensor
    """int64 [images, 3]: patches along time, height, width."""
    occurrence: tuple[int, ...]
    """For each image placeholder of the batch, in order, the index of its image; a prompt's completions share one."""

    def to(self, device: torch.device) -> PixelBatch:
        return replace(self, pixel_values=self.pixel_values.to(device), grid_thw=self.grid_thw.to(device))


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the `S` sequences of a packed row lie. Example: lengths 3 and 2 have the bounds 0, 3, 5."""

    lengths: tuple[int, ...]
    """On the host, so that no device has to be waited for."""
    bounds: torch.Tensor
    """int32 [S + 1]"""

    def to(self, device: torch.device) -> Segments:
        return replace(self, bounds=self.bounds.to(device))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`S` sequences with `N` trained tokens in sample order.

    Packed, they are one row (B = 1) of exactly their tokens; else each has a row (B = S), padded on the right to `T`.
    """

    input_ids: torch.Tensor
    """int64 [B, T]"""
    position_ids: torch.Tensor
    """int64 [3, B, T]"""
    segments: Segments | None
    """None for padded rows."""
    tokens: int
    """Tokens without padding."""
    rows: torch.Tensor
    """int64 [N]: flat index into B*T of the position whose output predicts each trained token."""
    targets: torch.Tensor
    """int64 [N]: the trained tokens."""
    sequence: torch.Tensor
    """int64 [N]: which of the S sequences each trained token belongs to."""
    pixels: PixelBatch | None
    index: tuple[int, ...]
    """Position of each of the S sequences in the list that the batch was made from."""

    def to(self, device: torch.device) -> MicroBatch:
        names = ("input_ids", "position_ids", "rows", "targets", "sequence")
        moved: dict[str, Any] = {name: getattr(self, name).to(device) for name in names}
        pixels = self.pixels.to(device) if self.pixels else None
        return replace(self, **moved, segments=self.segments.to(device) if self.segments else None, pixels=pixels)


def collate(
    samples: Sequence[TrainingSample], index: Sequence[int], pad_id: int, images: ImageTable | None
) -> MicroBatch:
    """Pad `samples[i] for i in index` into one micro-batch, a row for each."""
    chosen = [samples[i] for i in index]
    width = max(sample.length for sample in chosen)
    input_ids = np.full((len(chosen), width), pad_id, dtype=np.int64)
    positions = np.zeros((3, len(chosen), width), dtype=np.int64)
    for b, sample in enumerate(chosen):
        input_ids[b, : sample.length] = sample.input_ids
        positions[:, b, : sample.length] = sample.position_ids
    starts = [b * width for b in range(len(chosen))]
    return _micro_batch(input_ids, positions, starts, None, chosen, index, images)


def concatenate(samples: Sequence[TrainingSample], index: Sequence[int], images: ImageTable | None) -> MicroBatch:
    """Pack `samples[i] for i in index` into one row."""
    chosen = [samples[i] for i in index]
    lengths = tuple(sample.length for sample in chosen)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    input_ids = np.concatenate([sample.input_ids for sample in chosen])[None]
    positions = np.concatenate([sample.position_ids for sample in chosen], axis=1)[:, None]
    segments = Segments(lengths, torch.from_numpy(bounds.astype(np.int32)))
    return _micro_batch(input_ids, positions, bounds[:-1].tolist(), segments, chosen, index, images)


def _micro_batch(
    input_ids: np.ndarray,
    positions: np.ndarray,
    starts: Sequence[int],
    segments: Segments | None,
    chosen: Sequence[TrainingSample],
    index: Sequence[int],
    images: ImageTable | None,
) -> MicroBatch:
    """`starts`: flat index of the first token of each sequence."""
    trained = [np.flatnonzero(sample.trained) + sample.prompt_length for sample in chosen]
    rows = np.concatenate([start + where - 1 for start, where in zip(starts, trained, strict=True)])
    keys = [key for sample in chosen for key in sample.image_keys]
    return MicroBatch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(positions),
        segments=segments,
        tokens=sum(sample.length for sample in chosen),
        rows=torch.from_numpy(rows),
        targets=torch.from_numpy(input_ids.reshape(-1)[rows + 1]),
        sequence=torch.from_numpy(np.repeat(np.arange(len(chosen)), [len(where) for where in trained])),
        pixels=images.batch(keys) if images is not None and keys else None,
        index=tuple(index),
    )


class ImageTable:
    """Processed pixels by digest, so that an image seen in many completions or epochs is processed once."""

    def __init__(self) -> None:
        self._pixels: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._pixels

    def add(self, key: str, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> None:
        """Store one image: float32 [patches, patch_dim] and int64 [3]."""
        self._pixels[key] = (pixel_values, grid_thw)

    def grid(self, key: str) -> torch.Tensor:
        return self._pixels[key][1]

    def patches(self, key: str) -> int:
        return len(self._pixels[key][0])

    def batch(self, keys: Sequence[str]) -> PixelBatch:
        order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        return PixelBatch(
            pixel_values=torch.cat([self._pixels[key][0] for key in order]),
            grid_thw=torch.stack([self._pixels[key][1] for key in order]),
            occurrence=tuple(order[key] for key in keys),
        )


def split_by_tokens(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Micro-batches of at most `budget` padded tokens; like lengths together, so that little is padding.

    A sequence longer than the budget gets a micro-batch of its own: it is never split.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    current: list[int] = []
    for i in order:
        width = lengths[current[0]] if current else lengths[i]
        if current and width * (len(current) + 1) > budget:
            yield sorted(current)
            current = []
        current.append(i)
    if current:
        yield sorted(current)
