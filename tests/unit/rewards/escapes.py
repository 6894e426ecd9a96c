"""For the attempts to get out of the sandbox. Where it does no harm, the same code is run without isolation and must
succeed there: so it is the sandbox that stops it, and not a mistake in the attempt."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rewards import score
from rewards.base import RewardResult
from rewards.sandbox import Finished, Limits, Sandbox, capabilities

ROOT = Path(__file__).resolve().parents[3]

needs_namespaces = pytest.mark.skipif(
    sys.platform != "linux" or not capabilities().namespaces, reason="no namespaces: " + capabilities().problem
)

CALL = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if {call} == -1:
    raise OSError(ctypes.get_errno(), "refused")
"""
"""For a call of the C library; to be formatted."""


def run(code: str, box: Sandbox | None = None) -> Finished:
    return (box or Sandbox("namespaces")).run_python(code).commands[0]


def limited(**limits: float) -> Sandbox:
    return Sandbox("namespaces", limits=Limits(**limits))  # type: ignore[arg-type]


def escapes(code: str, box: Sandbox) -> bool:
    """Whether the code gets through; `held` must come from an error of the system, not of the code."""
    indented = "\n".join("    " + line for line in code.splitlines())
    guarded = (
        f"import os, sys\ntry:\n{indented}\nexcept OSError as exc:\n    print('held', exc)\nelse:\n    print('out')"
    )
    finished = run(guarded, box)
    assert finished.ok, finished
    return finished.stdout.strip().endswith(b"out")


def assert_only_isolation_holds(code: str) -> None:
    assert escapes(code, Sandbox("none"))
    assert not escapes(code, Sandbox("namespaces"))


def grade_code(code: str, tests: object, **sample: object) -> RewardResult:
    """The grade of a program as an answer of the type general-code."""
    gold = tests if isinstance(tests, str) else json.dumps(tests)
    return score(f"<think>so</think>\n```python\n{code}\n```", gold, "general-code", sample=sample)
