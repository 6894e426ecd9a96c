"""What goes into a sandbox and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

Isolation = Literal["auto", "namespaces", "container", "none"]
ISOLATIONS: tuple[str, ...] = get_args(Isolation)

EndedBy = Literal["", "wall", "cpu", "memory", "output", "file_size", "killed"]


class SandboxUnavailable(RuntimeError):
    """This machine can't isolate untrusted code as asked; the message says what is missing and what to set."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one command may use; a command that meets a limit is ended or refused, never slowed down.

    Without a control group (see `Sandbox`) memory is bounded per process, so that all of them together may use
    `processes * memory_mb`, and `scratch_mb` besides.
    """

    wall_s: float = 10.0
    """Seconds from a command's start until it is killed."""
    cpu_s: int = 10
    """Seconds of processor time of each process, over all its threads."""
    memory_mb: int = 512
    """Address space of each process in MiB; the interpreter alone needs 16."""
    processes: int = 1
    """Processes alive at once; with 1 a command can't start another."""
    threads: int = 32
    """Threads beyond the first of each process, in total."""
    file_mb: int = 16
    """Size of one file in MiB."""
    scratch_mb: int = 64
    """Size of the scratch folder in MiB; it is held in memory. Not bounded with isolation `none`."""
    output_kb: int = 256
    """What is kept of stdout and of stderr, each, in KiB; a command that writes more is killed."""
    open_files: int = 128
    files_in_mb: int = 64
    """Total size of the files sent in, in MiB."""
    files_out: int = 64
    files_out_mb: int = 64
    """Number and total size, in MiB, of the files sent back."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
                raise ValueError(f"the sandbox limit {item.name} is {value!r}; set a number above 0")
            if item.name != "wall_s" and value != int(value):
                raise ValueError(f"the sandbox limit {item.name} is {value!r}; the kernel counts it in whole numbers")


@dataclass(frozen=True, slots=True)
class Command:
    """A program and what it reads.

    Example:
        Command(["python3", "main.py"], stdin=b"3 4\\n")
    """

    argv: Sequence[str]
    stdin: bytes | int = b""
    """Content, or a file descriptor to read from, which the run takes over and closes."""
    stdout: int | None = None
    """A file descriptor to write to, which the run takes over and closes; by default the output is captured."""
    wall_s: float | None = None
    output_kb: int | None = None
    """These replace the limits."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How one command ended."""

    exit_code: int
    """As in `subprocess`: negative for the signal that ended it."""
    ended_by: EndedBy
    """The limit that ended it, `killed` if the whole sandbox died under it, else empty.

    `memory` rests on the traceback that Python leaves, or on the control group's count where there is one: a program
    in another language whose allocation fails just ends as it likes.
    """
    stdout: bytes
    stderr: bytes
    wall_s: float
    cpu_s: float
    peak_mb: float
    """Largest resident size of one process in MiB."""

    @property
    def ok(self) -> bool:
        return self.exit_code == 0 and not self.ended_by


@dataclass(frozen=True, slots=True)
class Report:
    """What a run of a sandbox gave."""

    commands: tuple[Finished, ...]
    """One for each command that was started, in order."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Regular files of the scratch folder that were asked for, by relative path."""
    left_out: tuple[str, ...] = ()
    """Paths asked for whose files would have gone over the limits."""
