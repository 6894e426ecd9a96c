"""The first process of a sandbox.

    caller --stdin: job--> launcher --fork--> supervisor (process 1 of the namespaces) --fork, exec--> command
       <-------------------- report: stdout --------+

The launcher stays outside the new process namespace to hold its life: when the caller closes stdin, because it has lost
patience or is dead, the launcher kills the supervisor, and the kernel everything inside. The launcher ends only after
the last process inside has.
"""

from __future__ import annotations

import marshal
import os
import select

from . import linux, namespaces, supervise
from .frames import Reporter, read_exactly


def main() -> None:
    """Read a job, run it, report it."""
    report = os.dup(1)
    os.set_inheritable(report, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    reporter = Reporter(report)
    # marshal and not json, which takes longer to import than the rest of this program; the caller is trusted.
    job = marshal.loads(read_exactly(0, int.from_bytes(read_exactly(0, 8), "big")))
    try:
        if job["mode"] != "container":  # there the caller is outside, and stdin alone tells of its end
            linux.die_with_parent()
            if os.getppid() != job["caller"]:
                return  # the caller died before the line above
        _expect_to_be_killed_first()
        if job["cgroup"]:
            _write(job["cgroup"] + "/cgroup.procs", "0")
        as_root = namespaces.enter() if job["mode"] == "namespaces" else False
        # The supervisor counts against the limit on tasks, and this process where it is in the user namespace too.
        job["own_tasks"] = None if job["mode"] != "namespaces" else 1 if as_root else 2
        supervisor = os.fork()
    except OSError as exc:
        reporter.text("P", _explain(exc))
        return
    if supervisor == 0:
        _supervise(job, reporter, as_root)
    exit_fd = os.pidfd_open(supervisor)
    _keep_only(0, exit_fd)
    _wait(supervisor, exit_fd)


def _keep_only(*descriptors: int) -> None:
    """Close the rest: who waits for the end of a pipe must not wait for this process."""
    for number in range(max(descriptors) + 1):
        if number not in descriptors:
            os.closerange(number, number + 1)
    linux.close_from(max(descriptors) + 1)


def _wait(supervisor: int, exit_fd: int) -> None:
    """Until the supervisor has ended by itself, or by our hand because stdin was closed."""
    poller = select.poll()
    poller.register(exit_fd, select.POLLIN)
    poller.register(0, select.POLLIN)
    if all(descriptor != exit_fd for descriptor, _ in poller.poll()):
        os.kill(supervisor, linux.SIGKILL)
    os.waitpid(supervisor, 0)


def _supervise(job: dict, reporter: Reporter, as_root: bool) -> None:
    """The body of the supervisor; never returns."""
    try:
        try:
            os.close(0)
            os.open(os.devnull, os.O_RDONLY)
            matches = supervise.matcher(job["outputs"])
            _settle(job, as_root)
            supervise.write_files(job["scratch"], job["files"])
        except OSError as exc:
            reporter.text("P", _explain(exc))
            return
        reporter.text("S", "")
        supervise.run_commands(job, reporter)
        supervise.collect_files(job, matches, reporter)
        reporter.text(".", "")
    finally:
        os._exit(0)


def _settle(job: dict, as_root: bool) -> None:
    """Everything that a command's process inherits, but for its limits and its filter."""
    if job["mode"] == "namespaces":
        namespaces.build_view(job["paths"], job["links"], job["limits"]["scratch_bytes"], as_root)
    linux.default_signals(linux.SIGINT)  # a process 1 without handlers can't be signalled from inside
    linux.adopt_orphans()
    if job["mode"] != "none":
        linux.drop_capabilities()
        linux.forbid_new_privileges()
    linux.die_with_parent()  # the change of user has reset it
    linux.set_dumpable(False)


def _expect_to_be_killed_first() -> None:
    """If the machine runs out of memory, the sandbox goes before the trainer."""
    try:
        _write("/proc/self/oom_score_adj", "1000")
    except OSError:
        pass  # no /proc, or a policy against it: the limits still hold


def _explain(exc: OSError) -> str:
    return str(exc.strerror) if exc.filename is None else f"{exc.filename}: {exc.strerror}"


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
