"""A safetensors file in a folder that every node sees: for workers that nothing else reaches.

A file appears under its name whole. The two newest are kept: one is being loaded while the next is written.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

from rl.errors import FetchError, SyncError, first_lines
from rl.models.files import save_weights
from rl.sync.base import Ticket, Turns
from rl.sync.bundle import Layout, views, write

_KEPT = 2
_FILES = "weights-*.safetensors*"


class DiskSender:
    """See `rl.sync.base.Sender`. Files of an earlier process in the folder are removed, and one's own at the end."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder).absolute()
        self._turns = Turns(1)
        self._remove()

    def buffer(self, size: int) -> torch.Tensor:
        return self._turns.next(size)

    def send(self, buffer: torch.Tensor, layout: Layout, version: int) -> str:
        """
        Raises:
            SyncError: the file can't be written.
        """
        path = self._folder / f"weights-{version:09d}.safetensors"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_weights(views(layout.bundle(version, buffer)), path)
        except Exception as exc:  # safetensors has exceptions of its own for a full disk
            raise SyncError(
                f"version {version} can't be written to {self._folder}: {first_lines(exc, lines=2)}; set sync.folder "
                "to a folder with room that every node sees"
            ) from exc
        self._remove(keep=_KEPT)
        return str(path)

    def close(self) -> None:
        self._remove()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # unless something else is in it

    def _remove(self, keep: int = 0) -> None:
        files = sorted(self._folder.glob(_FILES))
        for path in files[: len(files) - keep]:
            path.unlink(missing_ok=True)  # a worker that has it open goes on reading it


class DiskReceiver:
    """See `rl.sync.base.Receiver`."""

    def __init__(self) -> None:
        self._turns = Turns(1)

    def receive(self, ticket: Ticket) -> torch.Tensor:
        from safetensors import SafetensorError, safe_open

        layout = ticket.layout
        try:
            buffer = self._turns.next(layout.size)
            with safe_open(ticket.where, framework="pt") as file:
                write({name: file.get_tensor(name) for name in layout.names}, layout, buffer)
        except (OSError, SafetensorError, RuntimeError, AssertionError) as exc:
            raise FetchError(
                f"{ticket.where} can't be read here: {first_lines(exc, lines=2)}; sync.folder must be a folder that "
                "every node sees"
            ) from exc
        return buffer

    def release(self) -> None:
        pass

    def close(self) -> None:
        pass
