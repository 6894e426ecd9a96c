"""The supervisor: runs the untrusted commands one after the other, each with its limits, and reports what they did.

Inside namespaces it is process 1: nothing in there can signal it, and all that is left of a command dies before the
next one starts.
"""

from __future__ import annotations

import os
import resource
import select
import time

from . import linux, seccomp
from .frames import Reporter

TYPE_CHECKING = False  # as typing has it, without its import
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536
_MAX_DEPTH = 8
_SIGNALS = 128
"""Signals and timers that may wait: all programs of the user share a count of them."""
_RLIMIT_SIGPENDING, _RLIMIT_NICE, _RLIMIT_RTPRIO = 11, 13, 14


def run_commands(job: dict, reporter: Reporter) -> None:
    """Run `job["commands"]` in order until the job's time is over; every command started is reported."""
    end = time.monotonic() + job["wall_s"]
    for command in job["commands"]:
        now = time.monotonic()
        if now >= end:
            return
        good = _Run(command, job, reporter, min(end, now + command["wall_s"])).finish()
        if job["stop_on_failure"] and not good:
            return


class _Run:
    """One command with its pipes."""

    def __init__(self, command: dict, job: dict, reporter: Reporter, end: float) -> None:
        self.job, self.reporter, self.end = job, reporter, end
        self.room = {"O": command["output_bytes"], "E": command["output_bytes"]}
        self.ended_by = ""
        self.poller = select.poll()
        self.streams: dict[int, str] = {}
        stdin: int | bytes = command["stdin"]
        self.unsent = memoryview(stdin if isinstance(stdin, bytes) else b"")
        theirs = []
        self.to_child = -1
        if isinstance(stdin, int):
            theirs.append(stdin)
        else:
            read_end, self.to_child = os.pipe()
            theirs.append(read_end)
            os.set_blocking(self.to_child, False)
            self.poller.register(self.to_child, select.POLLOUT)
        for name in "OE":
            if name == "O" and command["stdout"] >= 0:
                theirs.append(command["stdout"])
                continue
            read_end, write_end = os.pipe()
            theirs.append(write_end)
            os.set_blocking(read_end, False)
            self.streams[read_end] = name
            self.poller.register(read_end, select.POLLIN)
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, job, theirs)
        for descriptor in theirs:
            os.close(descriptor)
        self.exit_fd = os.pidfd_open(self.pid)
        self.poller.register(self.exit_fd, select.POLLIN)

    def finish(self) -> bool:
        """Serve the pipes until the command ends or meets a limit, kill what is left, report; True for success."""
        while not self.ended_by:
            left = self.end - time.monotonic()
            if left <= 0:
                self.ended_by = "wall"
                break
            events = self.poller.poll(left * 1000 + 1)
            self._serve(events)
            if any(descriptor == self.exit_fd for descriptor, _ in events):
                break
        if self.ended_by:
            os.kill(self.pid, linux.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        _kill_rest(self.pid)
        wall = time.monotonic() - self.started
        self._drain()
        code = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        if not self.ended_by:
            self.ended_by = _limit_of(code, cpu, self.job["limits"]["cpu_s"])
        self.reporter.text("X", f"{code} {wall:.6f} {cpu:.6f} {usage.ru_maxrss} {self.ended_by}")
        return code == 0 and not self.ended_by

    def _serve(self, events: list) -> None:
        for descriptor, _ in events:
            if descriptor == self.to_child:
                self._feed()
            elif descriptor in self.streams:
                self._receive(descriptor)

    def _feed(self) -> None:
        try:
            sent = os.write(self.to_child, self.unsent[:_CHUNK]) if self.unsent else 0
            self.unsent = self.unsent[sent:]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.unsent = memoryview(b"")  # it does not want to read more
        if not self.unsent:
            self.poller.unregister(self.to_child)
            os.close(self.to_child)
            self.to_child = -1

    def _receive(self, descriptor: int) -> bool:
        """Pass on what a pipe holds; False at its end, or where the command has written more than it may."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        name = self.streams[descriptor]
        kept = data[: self.room[name]]
        self.room[name] -= len(kept)
        if kept:
            self.reporter.bytes(name, kept)
        if len(kept) < len(data):
            self.ended_by = self.ended_by or "output"
        if data and len(kept) == len(data):
            return True
        self.poller.unregister(descriptor)
        os.close(descriptor)
        del self.streams[descriptor]
        return False

    def _drain(self) -> None:
        for descriptor in list(self.streams):
            while self._receive(descriptor):
                pass
        for descriptor in (*self.streams, self.exit_fd, self.to_child):
            if descriptor >= 0:
                os.close(descriptor)


def _become(command: dict, job: dict, descriptors: list) -> None:
    """In the fork: take the limits on, and turn into the command. Never returns."""
    try:
        for target, descriptor in enumerate([os.dup(item) for item in descriptors]):
            os.dup2(descriptor, target)
        linux.close_from(3)
        os.setsid()
        os.chdir(job["scratch"])
        linux.default_signals(linux.SIGPIPE, linux.SIGXFSZ)  # ignored by Python, and then by what it turns into
        machine = os.uname().machine
        program = seccomp.build(machine, may_fork=job["limits"]["processes"] > 1) if job["filtered"] else b""
        _limit(job["limits"], job["own_tasks"])
        if program:
            linux.forbid_new_privileges()
            linux.install_filter(program)
        os.execvpe(command["argv"][0], command["argv"], job["env"])
    except BaseException as exc:
        os.write(2, f"sandbox: the command can't be started: {exc}\n".encode(errors="replace"))
    finally:
        os._exit(127)


def _limit(limits: dict, own_tasks: int | None) -> None:
    cpu = limits["cpu_s"]
    wanted = [
        (resource.RLIMIT_CORE, 1, 1),  # see the filter: with 0 a crash would still start a core handler of the host
        (resource.RLIMIT_CPU, cpu, cpu + 1),  # SIGXCPU first, SIGKILL for those who catch it
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (_RLIMIT_NICE, 0, 0),
        (_RLIMIT_RTPRIO, 0, 0),
        (resource.RLIMIT_AS, limits["memory_bytes"], limits["memory_bytes"]),
    ]
    if own_tasks is not None:  # these count the whole user's, and without a user namespace strangers' among them
        tasks = limits["processes"] + limits["threads"] + own_tasks
        wanted += [(resource.RLIMIT_NPROC, tasks, tasks), (_RLIMIT_SIGPENDING, _SIGNALS, _SIGNALS)]
    for kind, soft, hard in wanted:
        _, highest = resource.getrlimit(kind)
        if highest != resource.RLIM_INFINITY:
            soft, hard = min(soft, highest), min(hard, highest)
        resource.setrlimit(kind, (soft, hard))


def _kill_rest(session: int) -> None:
    """Kill what the command has left behind, and wait until it is gone."""
    while True:
        if os.getpid() == 1:
            _kill(-1)  # everybody in this process namespace but us
        else:
            _kill(-session)  # the command's process group, and below the orphans that this process has adopted
            with open(f"/proc/self/task/{os.getpid()}/children") as file:
                for pid in file.read().split():
                    _kill(int(pid))
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _kill(pid: int) -> None:
    try:
        os.kill(pid, linux.SIGKILL)
    except ProcessLookupError:
        pass


def _limit_of(code: int, cpu_s: float, allowed_s: float) -> str:
    if code == -linux.SIGXCPU or (code == -linux.SIGKILL and cpu_s >= allowed_s):
        return "cpu"
    return "file_size" if code == -linux.SIGXFSZ else ""


def write_files(scratch: str, files: list) -> None:
    for name, content in files:
        path = os.path.join(scratch, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)


def matcher(patterns: list) -> Callable[[str], bool]:
    """Whether a path is among `patterns`; made before the view is, because it may have something to import."""
    if "*" in patterns:
        return lambda path: True
    if not any(char in pattern for pattern in patterns for char in "*?["):
        return lambda path: path in patterns
    from fnmatch import fnmatchcase  # imports re, which plain names do without

    return lambda path: any(fnmatchcase(path, pattern) for pattern in patterns)


def collect_files(job: dict, matches: Callable[[str], bool], reporter: Reporter) -> None:
    """Report the regular files that match; no link is followed, neither by a file nor by a folder."""
    if not job["outputs"]:
        return
    limits = job["limits"]
    room = [limits["collected_files"], limits["collected_bytes"]]
    root = os.open(job["scratch"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    _collect(root, "", matches, room, reporter, 0)


def _collect(
    folder: int, prefix: str, matches: Callable[[str], bool], room: list, reporter: Reporter, depth: int
) -> None:
    for name in sorted(os.listdir(folder)):
        path = prefix + name
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us up
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError:
            continue  # a link, a socket, or without permission
        try:
            kind = os.fstat(descriptor).st_mode & 0o170000
            if kind == 0o040000 and depth < _MAX_DEPTH:
                _collect(descriptor, path + "/", matches, room, reporter, depth + 1)
            elif kind == 0o100000 and matches(path):
                _report_file(descriptor, path, room, reporter)
        finally:
            os.close(descriptor)


def _report_file(descriptor: int, path: str, room: list, reporter: Reporter) -> None:
    size = os.fstat(descriptor).st_size
    if room[0] < 1 or size > room[1]:
        reporter.text("L", path)
        return
    room[0] -= 1
    content = os.pread(descriptor, size, 0)
    room[1] -= len(content)
    reporter.text("N", path)
    reporter.bytes("F", content)
