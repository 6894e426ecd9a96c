"""The report that the sandbox sends out: frames of one letter, eight bytes of length and a payload.

`S` the commands begin; then for each command `O` and `E` (pieces of its output) and `X` (how it ended); then for each
file `N` (name) and `F` (content), or `L` (name of one left out); `.` the end. `P` instead: it could not be set up.
"""

from __future__ import annotations

import os


class Reporter:
    """Writes frames to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def text(self, letter: str, text: str) -> None:
        self.bytes(letter, text.encode("utf-8", "surrogateescape"))

    def bytes(self, letter: str, payload: bytes) -> None:
        unsent = memoryview(letter.encode() + len(payload).to_bytes(8, "big") + payload)
        while unsent:
            unsent = unsent[os.write(self._descriptor, unsent) :]


def read_exactly(descriptor: int, count: int) -> bytes:
    """Exactly `count` bytes.

    Raises:
        EOFError: the other side is gone.
    """
    data = bytearray()
    while len(data) < count:
        piece = os.read(descriptor, min(count - len(data), 1 << 20))
        if not piece:
            raise EOFError("the caller is gone")
        data += piece
    return bytes(data)
