"""Loads a version's weights into the model of a scheduler process, from memory that the rollout worker has filled.

SGLang calls `load` (its option `--custom-weight-loader`) in each tensor-parallel rank, paused and with no keys cached.
The memory is a file without a name in the worker, so every rank maps the same pages and nothing is left in a file
system whoever dies. Its layout: 8 bytes with the length of a JSON header, little-endian, or with 0 once a rank could
not load what is there; 8 bytes for when the scheduler stopped for the load, seconds of the monotonic clock as a
little-endian float, 0 until a rank has loaded and where it can't tell; the header, with names, dtypes, shapes and byte
offsets of the tensors counted from `start`; the tensors.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import warnings
from types import FrameType
from typing import Any

import torch

FILE = "RL_WEIGHTS_FILE"
"""Environment variable with the path of the memory."""
_HEAD = 16


def load(model: Any, _: Any) -> None:
    """Copy every tensor into the model.

    Raises:
        ValueError: part of the model's weights were in none of the tensors, or a tensor does not fit. SGLang then ends
            its processes, as it should: half the weights are of another version. To the worker that looks like any
            other death, so the memory says that it was none.
    """
    try:
        _load(model)
    except Exception:
        with open(os.environ[FILE], "r+b") as file:
            file.write(bytes(8))
        raise
    with open(os.environ[FILE], "r+b") as file:
        file.seek(8)
        file.write(struct.pack("<d", _stopped_at()))


def _load(model: Any) -> None:
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    for parameter in parameters.values():
        # Models of SGLang pass over names that they do not know. What is not written shows up below.
        parameter.data.fill_(float("nan"))
    tensors, flat = _tensors(os.environ[FILE])
    given = [name for name, tensor in tensors if tensor.is_floating_point() and bool(torch.isnan(tensor).any())]
    if given:
        raise ValueError(f"not a number in the weights pushed: {', '.join(given[:5])}")
    model.load_weights(iter(tensors))
    del tensors, flat
    missing = [name for name, parameter in parameters.items() if bool(torch.isnan(parameter.data).any())]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(parameters)} parameters, {', '.join(missing[:5])} among them, got no weights: "
            "their names in the push are not those of the checkpoint that SGLang knows"
        )
    _forget_images()


def _tensors(path: str) -> tuple[list[tuple[str, torch.Tensor]], torch.Tensor]:
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    length = int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[_HEAD : _HEAD + length])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        flat = torch.frombuffer(mapped, dtype=torch.uint8, offset=int(header["start"]))
    tensors = []
    for name, dtype_name, shape, offset in zip(
        header["names"], header["dtypes"], header["shapes"], header["offsets"], strict=True
    ):
        dtype = getattr(torch, dtype_name)
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        tensors.append((name, flat[offset : offset + size].view(dtype).view(shape)))
    return tensors, flat


def _stopped_at() -> float:
    """When the scheduler, which is among the callers, stopped its steps: a request to pause waits for the one under
    way, so whoever sent it can't tell."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        scheduler = getattr(frame.f_locals.get("self"), "scheduler", None)
        if (stopped := getattr(scheduler, "_pause_started_at", None)) is not None:
            return float(stopped)
        frame = frame.f_back
    return 0.0


def _forget_images() -> None:
    """Drop features of images that the old weights made; SGLang's own flush leaves them."""
    from sglang.srt.managers import mm_schedule

    if mm_schedule.embedding_cache is not None:
        mm_schedule.embedding_cache.clear()
