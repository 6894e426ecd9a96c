"""Runs a program's tests in the sandbox; the verdict is found outside of it.

The expected values never enter a sandbox in which untrusted code runs, so there is nothing in there to read, and
nothing that the code can print, patch or exit with that means "passed".
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.code.compare import same_output, same_value
from rewards.code.inside.wire import decode, encode
from rewards.code.suites import AssertTests, CallTests, StdinTests, Suite
from rewards.sandbox import PYTHON_FLAGS, Command, Finished, Report, Sandbox, SandboxUnavailable

_INSIDE = Path(__file__).resolve().parent / "inside"
_STOP_MARGIN_S = 5.0

_HOST, _EXAMINER = (
    f"import sys; sys.path.insert(0, '.'); import {name}; {name}.main()" for name in ("host", "examiner")
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a suite went."""

    passed: int
    total: int
    first_failure: str = ""


class TestsUnusable(RuntimeError):
    """The test code itself can't run here, whatever the program under test is."""

    __test__ = False  # for pytest


def run_suite(code: str, suite: Suite, box: Sandbox, total_s: float) -> Outcome:
    """Run all tests of a program within `total_s` seconds; a test that is not reached in time has failed.

    Raises:
        SandboxUnavailable: see `Sandbox.run`.
        TestsUnusable: the test code needs a module that is not there.
    """
    if isinstance(suite, StdinTests):
        return _run_program(code, suite, box, total_s)
    if isinstance(suite, CallTests):
        return _run_calls(code, suite, box, total_s)
    return _run_asserts(code, suite, box, total_s)


def _run_program(code: str, suite: StdinTests, box: Sandbox, total_s: float) -> Outcome:
    command = [box.python, *PYTHON_FLAGS, "program.py"]
    report = box.run(
        [
            Command(command, stdin=text.encode(errors="replace"), output_kb=_output_kb(expected))
            for text, expected in zip(suite.inputs, suite.outputs, strict=True)
        ],
        files=_files("program.py") | _solution(code),
        wall_s=total_s,
    )
    problems: list[str | None] = []
    for number, expected in enumerate(suite.outputs):
        problem = _failure(report.commands[number]) if number < len(report.commands) else "the time was over"
        if problem is None and not same_output(report.commands[number].stdout.decode(errors="replace"), expected):
            problem = "another output was expected"
        problems.append(problem)
    return _outcome(problems)


def _run_calls(code: str, suite: CallTests, box: Sandbox, total_s: float) -> Outcome:
    requests = "".join(
        json.dumps({"id": number, "do": "call", "on": suite.name, "args": _encode(args), "kwargs": _encode({})}) + "\n"
        for number, args in enumerate(suite.arguments)
    )
    argv = [box.python, *PYTHON_FLAGS, "-c", _HOST]
    output_kb = _output_kb(json.dumps(suite.expected))
    command = Command(argv, stdin=requests.encode(), wall_s=total_s, output_kb=output_kb)
    finished = box.run([command], files=_files("host.py", "wire.py") | _solution(code)).commands[0]
    replies = _replies(finished.stdout)
    problems: list[str | None] = []
    for number, expected in enumerate(suite.expected):
        problems.append(_judge(replies.get(number), expected, finished))
    return _outcome(problems)


def _replies(stdout: bytes) -> dict[int, dict[str, Any]]:
    """By number; of several with the same, the first. Lines that are no replies are left out."""
    replies: dict[int, dict[str, Any]] = {}
    for line in stdout.splitlines():
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(reply, dict) and isinstance(reply.get("id"), int):
            replies.setdefault(reply["id"], reply)
    return replies


def _judge(reply: dict[str, Any] | None, expected: Any, finished: Finished) -> str | None:
    if reply is None:
        return _failure(finished) or "it gave no result"
    if "value" not in reply:
        return f"it raised {reply.get('raised')!r:.200}"
    try:
        right = same_value(decode(reply["value"]), expected)
    except (ValueError, TypeError, LookupError, RecursionError):
        return "its result can't be read"
    return None if right else "another result was expected"


def _run_asserts(code: str, suite: AssertTests, box: Sandbox, total_s: float) -> Outcome:
    """Test code in one sandbox, the program in another, and two pipes between them."""
    plan = {"setup": suite.setup, "tests": list(suite.tests), "names": list(suite.names)}
    python = [box.python, *PYTHON_FLAGS, "-c"]
    to_program, from_examiner = os.pipe()
    to_examiner, from_program = os.pipe()
    program = Command([*python, _HOST], to_program, stdout=from_program, wall_s=total_s + _STOP_MARGIN_S)
    examiner = Command([*python, _EXAMINER], to_examiner, stdout=from_examiner, wall_s=total_s)
    failed: list[BaseException] = []

    def host() -> None:
        try:
            box.run([program], files=_files("host.py", "wire.py") | _solution(code))
        except BaseException as exc:  # raised in the caller's thread, below
            failed.append(exc)

    thread = threading.Thread(target=host, name="code-under-test")
    thread.start()
    try:
        files = _files("examiner.py", "wire.py") | {"tests.json": json.dumps(plan).encode()}
        report = box.run([examiner], files=files, outputs=["verdict.json"])
    finally:
        thread.join()
    if failed:
        raise failed[0]
    return _read_verdict(report, len(suite.tests))


def _read_verdict(report: Report, count: int) -> Outcome:
    if "verdict.json" not in report.files:
        said = report.commands[0].stderr.decode(errors="replace").strip().rpartition("\n")[2]
        reason = report.commands[0].ended_by or said[:200] or "it ended early"
        return Outcome(0, count, f"the tests did not come to an end: {reason}")
    verdict = json.loads(report.files["verdict.json"])
    if verdict["setup"] is not None:
        raise TestsUnusable(f"the tests can't be run: {verdict['setup']}")
    return _outcome(verdict["failures"])


def _solution(code: str) -> dict[str, bytes]:
    return {"solution.py": code.encode(errors="replace")}


def _files(*names: str) -> dict[str, bytes]:
    return {name: (_INSIDE / name).read_bytes() for name in names}


def _output_kb(expected: str) -> int:
    """What a program may write: a right answer several times over."""
    return 256 + len(expected) * 4 // 1024


def _encode(value: Any) -> Any:
    return encode(value, refer=None)  # from JSON, so there is nothing to refer to


def _failure(finished: Finished) -> str | None:
    if finished.ok:
        return None
    if finished.ended_by:
        return f"ended by the limit {finished.ended_by!r}"
    last = finished.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"exit code {finished.exit_code}: {last:.200}"


def _outcome(problems: list[str | None]) -> Outcome:
    failures = [(number, problem) for number, problem in enumerate(problems, 1) if problem is not None]
    first = f"test {failures[0][0]}: {failures[0][1]}" if failures else ""
    return Outcome(len(problems) - len(failures), len(problems), first)


__all__ = ["Outcome", "SandboxUnavailable", "TestsUnusable", "run_suite"]
