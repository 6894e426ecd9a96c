"""`Sandbox`: run untrusted commands with files in and files out.

box = Sandbox()
report = box.run_python("print(open('n').read() * 2)", files={"n": b"21"})
report.commands[0].stdout  # b'2121\\n'
"""

from __future__ import annotations

import dataclasses
import functools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rewards.sandbox import cgroup, container
from rewards.sandbox.exchange import Passed, exchange
from rewards.sandbox.probe import capabilities
from rewards.sandbox.records import (
    ISOLATIONS,
    Command,
    EndedBy,
    Finished,
    Isolation,
    Limits,
    Report,
    SandboxUnavailable,
)
from rewards.sandbox.view import View, interpreter, make_view, package_folders, python_paths

SCRATCH = "/scratch"
PYTHON_FLAGS = ("-S", "-s", "-P", "-B", "-X", "utf8")
"""No site: its start takes longer than the rest of the interpreter's, and packages are found by PYTHONPATH."""

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from inside.launcher import main; main()"
_HERE = Path(__file__).resolve().parent
_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Sandbox:
    """Where untrusted code runs: how it is isolated, what it sees, what it may use. Safe to share between threads.

    Each run is a fresh sandbox: no network, no environment of the host, the file system read-only but for a scratch
    folder (the working folder), everything dead when the run is over. Linux only.
    """

    isolation: Isolation = "auto"
    """`namespaces`: Linux namespaces and seccomp. `container`: a container runtime, see `image`. `auto`: namespaces,
    else a container where an image is named, else refusal. `none`: the caller accepts that the code can read what this
    user can read and use the network; resource limits, a clean environment and the group kill still hold."""
    limits: Limits = dataclasses.field(default_factory=Limits)
    readable: Sequence[str] = ()
    """Further paths of this machine to show, read-only; `rewards.sandbox.SYSTEM_TOOLS` for a shell."""
    packages: bool = False
    """Show the packages of this Python environment as well; without them there is the standard library."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Environment variables of the commands, besides the few that every command gets."""
    image: str | None = None
    """Image for `container`; it needs Python 3.9 or later as `python3`."""
    runtime: str = "docker"
    """Program that runs containers: docker, podman, or another with the same command line."""
    cgroup: str | None = None
    """Folder of a delegated control group (version 2) with the memory and pids controllers: then `memory_mb` bounds
    all processes of a run together, exactly, and `memory` is reported for any program."""

    def __post_init__(self) -> None:
        if self.isolation not in ISOLATIONS:
            raise ValueError(f"isolation {self.isolation!r} is not known; use one of {', '.join(ISOLATIONS)}")
        if self.isolation == "container" and not self.image:
            raise ValueError("isolation 'container' needs an image with Python: set `image` (REWARDS_SANDBOX_IMAGE)")

    @classmethod
    def from_environment(cls, **settings: Any) -> Sandbox:
        """The sandbox that an administrator has set up by REWARDS_SANDBOX (the isolation), REWARDS_SANDBOX_IMAGE,
        REWARDS_SANDBOX_RUNTIME and REWARDS_SANDBOX_CGROUP; `settings` are further fields.

        Raises:
            ValueError: a variable has a value that is not known.
        """
        names = {"isolation": "REWARDS_SANDBOX"} | {
            field: f"REWARDS_SANDBOX_{field.upper()}" for field in ("image", "runtime", "cgroup")
        }
        found = {field: value for field, name in names.items() if (value := os.environ.get(name))}
        return cls(**{**found, **settings})

    @property
    def python(self) -> str:
        """The interpreter as commands have to name it."""
        return "python3" if self.mode() == "container" else interpreter()

    def mode(self) -> Isolation:
        """The isolation in use: what `auto` has come to here.

        Raises:
            SandboxUnavailable: `auto`, and there is none.
        """
        if self.isolation != "auto":
            return self.isolation
        found = capabilities()
        if found.namespaces:
            return "namespaces"
        if self.image:
            return "container"
        raise SandboxUnavailable(found.explain())

    def run_python(
        self, code: str, *, stdin: bytes = b"", files: Mapping[str, bytes] | None = None, **more: Any
    ) -> Report:
        """Run a Python program; see `run` for the rest of the arguments."""
        command = Command([self.python, *PYTHON_FLAGS, "main.py"], stdin)
        return self.run([command], files={**(files or {}), "main.py": code.encode()}, **more)

    def run(
        self,
        commands: Sequence[Command],
        *,
        files: Mapping[str, bytes] | None = None,
        outputs: Sequence[str] = (),
        wall_s: float | None = None,
        stop_on_failure: bool = False,
    ) -> Report:
        """Run commands one after the other in one fresh sandbox; may be called from any thread.

        Args:
            commands: what remains of one is killed before the next starts; they share the scratch folder.
            files: content by relative path, written to the scratch folder before the first command.
            outputs: relative paths or patterns (`*.png`, `*` for all) of files to bring back after the last command.
                Links are not followed. Files sent in are not exempt from patterns.
            wall_s: seconds for all commands together; by default each has its own limit and no more.
            stop_on_failure: start no further command after one that fails.

        Raises:
            ValueError: files with names outside the scratch folder, or more of them than the limit.
            SandboxUnavailable: the isolation asked for can't be had.
        """
        ends = [end for command in commands for end in (command.stdin, command.stdout)]
        with Passed(end for end in ends if isinstance(end, int)) as passed:
            if sys.platform != "linux":
                raise SandboxUnavailable("the sandbox needs Linux; run the reward workers on a Linux machine")
            mode = self.mode()
            _check_memory(self.limits, mode)
            job = self._job(mode, commands, wall_s)
            job |= {"files": _checked_files(files or {}, self.limits)}
            job |= {"outputs": list(outputs), "stop_on_failure": stop_on_failure}
            return self._run_in_container(job, passed) if mode == "container" else self._run_here(job, passed)

    def _run_here(self, job: dict[str, Any], passed: Passed) -> Report:
        launcher = [interpreter(), "-I", "-S", "-c", _BOOT, str(_HERE)]
        with _scratch_folder(job), cgroup.child(self.cgroup, self.limits) as group:
            job["cgroup"] = None if group is None else str(group)
            report = exchange(launcher, job, self._most_bytes(job), passed)
            return report if group is None or not cgroup.ran_out_of_memory(group) else _out_of_memory(report)

    def _job(self, mode: Isolation, commands: Sequence[Command], wall_s: float | None) -> dict[str, Any]:
        limits = self.limits
        listed = [_pack(command, limits) for command in commands]
        if not listed:
            raise ValueError("there is no command to run")
        most = sum(command["wall_s"] for command in listed)
        view = self._view() if mode == "namespaces" else View((), {})
        return {
            "mode": mode,
            "caller": os.getpid(),
            "cgroup": None,
            "commands": listed,
            "wall_s": most if wall_s is None else min(wall_s, most),
            "filtered": mode != "none",
            "scratch": SCRATCH,
            "paths": list(view.paths),
            "links": view.links,
            "env": self._command_environment(mode),
            "limits": {
                "cpu_s": int(limits.cpu_s),
                "memory_bytes": int(limits.memory_mb) * _MIB,
                "processes": int(limits.processes),
                "threads": int(limits.threads),
                "file_bytes": int(limits.file_mb) * _MIB,
                "scratch_bytes": int(limits.scratch_mb) * _MIB,
                "open_files": int(limits.open_files),
                "collected_files": int(limits.files_out),
                "collected_bytes": int(limits.files_out_mb) * _MIB,
            },
        }

    def _view(self) -> View:
        return _view_of(tuple(self.readable), self.packages)

    def _most_bytes(self, job: Mapping[str, Any]) -> int:
        """More than the longest report: each byte of output may come in a frame of its own."""
        output = sum(2 * command["output_bytes"] + 1024 for command in job["commands"])
        return 10 * output + 2 * self.limits.files_out_mb * _MIB + 4 * _MIB

    def _command_environment(self, mode: Isolation) -> dict[str, str]:
        own = {
            "PATH": f"{os.path.dirname(interpreter())}:/usr/local/bin:/usr/bin:/bin",
            "HOME": SCRATCH,
            "TMPDIR": SCRATCH,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",  # the same program gives the same output
            "MALLOC_ARENA_MAX": "2",  # each takes 64 MiB of the address space that memory_mb bounds
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        if self.packages and mode != "container":
            own["PYTHONPATH"] = ":".join(package_folders())
        return {**own, **self.environment}

    def _run_in_container(self, job: dict[str, Any], passed: Passed) -> Report:
        assert self.image is not None
        if passed.descriptors:
            raise SandboxUnavailable(
                "a container can't be connected to another program by file descriptors; "
                "isolation 'namespaces' can, see rewards.sandbox.capabilities()"
            )
        name = container.fresh_name()
        boot = ["python3", "-I", "-S", "-c", _BOOT, container.LAUNCHER_FOLDER]
        argv = container.command_line(self.runtime, self.image, name, self.limits, _HERE / "inside") + boot
        try:
            return exchange(argv, job, self._most_bytes(job), passed)
        except SandboxUnavailable as exc:
            raise SandboxUnavailable(f"{exc}; the container was started by: {' '.join(argv[:6])} ...") from exc
        finally:
            container.remove(self.runtime, name)


@functools.cache
def _view_of(readable: tuple[str, ...], packages: bool) -> View:
    return make_view([*python_paths(), *(package_folders() if packages else ()), *readable])


def _pack(command: Command, limits: Limits) -> dict[str, Any]:
    argv = [os.fspath(part) for part in command.argv]
    if not argv or any("\0" in part for part in argv):
        raise ValueError(f"the command {argv!r:.80} can't be run; it needs a program, and no zero characters")
    wall_s = limits.wall_s if command.wall_s is None else command.wall_s
    stdout = -1 if command.stdout is None else command.stdout
    output_kb = limits.output_kb if command.output_kb is None else command.output_kb
    packed = {"argv": argv, "stdin": command.stdin, "stdout": stdout}
    return packed | {"wall_s": float(wall_s), "output_bytes": int(output_kb) * 1024}


def _checked_files(files: Mapping[str, bytes], limits: Limits) -> list[tuple[str, bytes]]:
    for name in files:
        path = PurePosixPath(name)
        if not name or "\0" in name or path.is_absolute() or ".." in path.parts or str(path) == ".":
            raise ValueError(f"{name!r} is no relative path inside the scratch folder; name files like 'data/a.png'")
    size = sum(len(content) for content in files.values())
    if size > limits.files_in_mb * _MIB:
        raise ValueError(f"the files have {size} bytes, over the limit of {limits.files_in_mb} MiB; set files_in_mb")
    return [(str(name), bytes(content)) for name, content in files.items()]


def _check_memory(limits: Limits, mode: Isolation) -> None:
    _, highest = resource.getrlimit(resource.RLIMIT_AS)
    if mode != "container" and highest != resource.RLIM_INFINITY and highest < limits.memory_mb * _MIB:
        raise ValueError(
            f"memory_mb is {limits.memory_mb}, but this process may only give {highest // _MIB} MiB of address space "
            "to those it starts; set less, or start the reward pool with a larger memory_mb"
        )


class _scratch_folder:
    """For a job without a mount namespace of its own: a temporary folder, gone afterwards."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job

    def __enter__(self) -> None:
        if self._job["mode"] == "none":
            folder = tempfile.mkdtemp(prefix="rewards-")
            self._job["scratch"] = folder
            self._job["env"] |= {"HOME": folder, "TMPDIR": folder}

    def __exit__(self, *_: object) -> None:
        if self._job["mode"] == "none":
            try:
                shutil.rmtree(self._job["scratch"], ignore_errors=True)
            except RecursionError:  # folders inside each other, more than Python can follow
                subprocess.run(["rm", "-rf", "--", self._job["scratch"]], stderr=subprocess.DEVNULL, check=False)


def _out_of_memory(report: Report) -> Report:
    """The kernel has killed a process of this run for memory: the last command's failure is that."""
    ended_by: EndedBy = "memory"
    *before, last = report.commands
    if last.ok:
        return report
    changed: Finished = dataclasses.replace(last, ended_by=ended_by)
    return dataclasses.replace(report, commands=(*before, changed))
