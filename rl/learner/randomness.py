"""The random state of a rank: Python's, numpy's, torch's and that of its GPU, as tensors for a checkpoint."""

from __future__ import annotations

import json
import random

import numpy as np
import torch


def capture() -> dict[str, torch.Tensor]:
    """uint8 tensors of the current states."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    states = {
        "python": _encode(random.getstate()),
        "numpy": _encode([kind, keys.tolist(), *rest]),  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore(states: dict[str, torch.Tensor]) -> None:
    """Put every generator where `capture` found it."""
    version, keys, gauss = _decode(states["python"])
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(_decode(states["numpy"])))
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


_BYTES = 16384
"""Both texts fit with room to spare; a fixed size lets a checkpoint be read into tensors of the reader's making."""


def _encode(value: object) -> torch.Tensor:
    text = json.dumps(value).encode()
    assert len(text) <= _BYTES
    return torch.from_numpy(np.frombuffer(text.ljust(_BYTES), dtype=np.uint8).copy())


def _decode(state: torch.Tensor) -> list:
    return json.loads(state.numpy().tobytes())
