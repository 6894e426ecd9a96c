"""A weight bundle on its way into an SGLang server: staged in memory that it maps, applied between two steps."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from rl.errors import SyncError
from rl.records import WeightBundle
from rl.rollout.engine import PushTimes

_ALIGN = 64
_HEAD = 16
WEIGHTS_FILE = "RL_WEIGHTS_FILE"
"""Environment variable of the server with the path of that memory."""
LOADER = "rl_weights.load"
"""What loads the weights inside the server, see `inside_sglang/rl_weights.py`."""

Post = Callable[[str, Any], Awaitable[Any]]


class StagedWeights:
    """Memory of this process, without a name in any file system, that a bundle is copied to; layout: `rl_weights`.

    It is not in /dev/shm, whose size containers limit, and it is gone with this process in whatever way that ends.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("rl-weights")
        self.path = f"/proc/{os.getpid()}/fd/{self._file}"
        """Where other processes of this user on this machine can open it."""

    def stage(self, bundle: WeightBundle) -> None:
        """Replace what is staged. Costs one copy in memory."""
        fields = {"names": bundle.names, "dtypes": bundle.dtypes, "shapes": bundle.shapes, "offsets": bundle.offsets}
        length = len(_header(fields, 0))  # the number of digits of `start` is fixed
        start = -(-(_HEAD + length) // _ALIGN) * _ALIGN
        header = _header(fields, start)
        # A tensor may lie on a GPU, from where the server's process can't read it.
        buffer = bundle.buffer if isinstance(bundle.buffer, np.ndarray) else bundle.buffer.cpu().numpy()
        os.ftruncate(self._file, start + buffer.nbytes)
        with mmap.mmap(self._file, start + buffer.nbytes) as mapped:
            mapped[:_HEAD] = length.to_bytes(8, "little") + bytes(8)
            mapped[_HEAD : _HEAD + length] = header
            np.frombuffer(mapped, np.uint8, offset=start)[:] = buffer

    @property
    def refused(self) -> bool:
        """Whether a rank of the server could not load what is staged: it ends itself then."""
        return os.pread(self._file, 8, 0) == bytes(8)

    @property
    def stopped_at(self) -> float | None:
        """When the server's steps stopped for the load, by `time.monotonic`; None where it could not tell."""
        (seconds,) = struct.unpack("<d", os.pread(self._file, 8, 8))
        return seconds or None

    def clear(self) -> None:
        """Give the memory back."""
        os.ftruncate(self._file, 0)

    def close(self) -> None:
        os.close(self._file)


def _header(fields: dict[str, Any], start: int) -> bytes:
    return json.dumps(fields | {"start": f"{start:012d}"}).encode()


async def apply(bundle: WeightBundle, staged: StagedWeights, ranks: int, post: Post, resume: bool = True) -> PushTimes:
    """Have the server load the bundle, with its requests paused and kept; then let them go on with `resume`.

    The pause is counted from when no step ran any more, or from here on: until then requests are computed as ever.

    Args:
        staged: holds the bundle.
        ranks: tensor-parallel ranks of the server.

    Raises:
        SyncError: a step was refused; the server must not be used further.
        Gone: it died on the way.
    """
    version, begun = bundle.version, time.monotonic()
    # `retract` puts running requests back into the queue without their keys and values, so that the cache can be
    # dropped; with `in_place` they go on with keys that the old weights made, and dropping it is an error.
    await post("/pause_generation", {"mode": "in_place" if bundle.keep_cache else "retract"})
    paused = time.monotonic()
    # The bracket is checked first: outside of it an update is refused.
    await _accepted(post, "/begin_weight_update", {"selector": "all"})
    nothing = b64encode(pickle.dumps([])).decode()  # the tensors are in the memory
    update = {
        "serialized_named_tensors": [nothing] * ranks,
        "load_format": LOADER,
        "flush_cache": not bundle.keep_cache,
        "weight_version": str(version),
    }
    said = await _accepted(post, "/update_weights_from_tensor", update)
    await _accepted(post, "/end_weight_update", {})
    loaded = time.monotonic()
    if not said.endswith(f"version updated to {version}."):
        raise SyncError(f"the server was given version {version}, and says: {said}")
    if resume:
        await go_on(post)
    stopped = max(staged.stopped_at or paused, begun)
    return PushTimes(pause_s=time.monotonic() - stopped, apply_s=loaded - stopped)


async def go_on(post: Post) -> None:
    """Have the server's requests go on after a pause."""
    await post("/continue_generation", {"torch_empty_cache": False})


async def _accepted(post: Post, path: str, payload: Any) -> str:
    """What the server says of a step that it has made."""
    answer = await post(path, payload)
    if not (isinstance(answer, dict) and answer.get("success") is True):
        raise SyncError(f"{path}: {answer}")
    return str(answer.get("message", ""))
