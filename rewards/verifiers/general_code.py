"""Programs, graded by their tests in the sandbox: 1 if all pass; `pass_fraction` is logged beside it.

The program is the last complete block of Python code after the reasoning, or the content of the answer tag. The gold
answer holds the tests, in any of the layouts of `rewards.code.suites`. How the code is isolated is the administrator's
to set (`Sandbox.from_environment`); where it can't be, the grade is an `error`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from rewards.base import Example, RewardResult, failed, graded, no_answer, shorten
from rewards.extract import after_reasoning, final_answer

TOTAL_S = 30.0
"""Seconds for all tests of one program."""
TEST_S = 10.0
"""Seconds for one run of a program; a row may say less or more as `time_limit`."""
TIMEOUT_S = 60.0
"""What a pool has to allow: all tests, and the start and end of a sandbox on a busy machine."""
MEMORY_MB = 1024
MAX_CODE_CHARS = 100_000

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([\w.+#-]*)[^`\n]*")
_PYTHON = ("", "python", "python3", "py", "py3", "python2")


def extract_code(completion: str) -> str | None:
    """The last complete fenced block after the reasoning that is Python or does not say what it is.

    With an answer tag only its content counts, and without a fence in it the content itself is the program.
    """
    text = after_reasoning(completion)
    if text is None:
        return None
    tagged = "<answer>" in text.lower()
    if tagged:
        text = final_answer(completion)
        if text is None:
            return None
    found: str | None = None
    fenced = False
    opened: tuple[str, str] | None = None
    block: list[str] = []
    for line in text.splitlines():
        fence = _FENCE.fullmatch(line)
        fenced = fenced or fence is not None
        if opened is None:
            if fence is not None:
                opened, block = (fence[1], fence[2].lower()), []
        elif fence is not None and fence[1].startswith(opened[0]) and line.strip() == fence[1]:
            if opened[1] in _PYTHON:
                found = "\n".join(block)
            opened = None
        else:
            block.append(line)
    return text if found is None and tagged and not fenced else found


def verify(
    completion: str, answer: str, *, prompt: str | None = None, sample: Mapping[str, Any] | None = None
) -> RewardResult:
    """1.0 if the program passes all tests within the limits, else 0.0.

    Status `error` where no sandbox is to be had, or the tests need a module that is not there; `invalid_gold` where
    the answer holds no tests.
    """
    from rewards.code import running, suites

    try:
        suite = suites.parse_suite(answer, sample or {})
    except suites.InvalidTests as exc:
        return failed("invalid_gold", f"{shorten(answer)!r}: {exc}")
    code = extract_code(completion)
    if code is None or not code.strip():
        return no_answer("no complete block of code after the reasoning")
    if len(code) > MAX_CODE_CHARS:
        return graded(0.0, f"the program has {len(code)} characters, over {MAX_CODE_CHARS}", pass_fraction=0.0)
    try:
        outcome = running.run_suite(code, suite, _sandbox(_time_limit(sample or {})), TOTAL_S)
    except (running.SandboxUnavailable, running.TestsUnusable) as exc:
        return failed("error", str(exc))
    fraction = outcome.passed / outcome.total
    detail = f"{outcome.passed} of {outcome.total} tests passed" + (
        f"; {shorten(outcome.first_failure, 200)}" if outcome.first_failure else ""
    )
    return graded(float(outcome.passed == outcome.total), detail, pass_fraction=fraction)


def warm_up() -> None:
    """Find out how this machine isolates code, so that the workers need not."""
    from rewards.sandbox import Sandbox, SandboxUnavailable

    try:
        Sandbox.from_environment().mode()
    except (SandboxUnavailable, ValueError):
        return  # then each request says so


def _time_limit(sample: Mapping[str, Any]) -> float:
    value = sample.get("time_limit")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= TOTAL_S:
        return float(value)
    return TEST_S


@functools.lru_cache(maxsize=64)
def _sandbox(test_s: float) -> Any:
    from rewards.sandbox import Limits, Sandbox

    limits = Limits(wall_s=2 * test_s, cpu_s=max(1, round(test_s)), memory_mb=MEMORY_MB)
    return Sandbox.from_environment(limits=limits)


def _block(code: str) -> str:
    return f"<think>so</think>Here it is:\n```python\n{code}\n```\n"


_SUM_TESTS = '{"inputs": ["1 2\\n", "10 -3\\n"], "outputs": ["3\\n", "7\\n"]}'
_FLIP_TESTS = '{"fn_name": "flip", "inputs": [[[1, 2]], [[]]], "outputs": [[2, 1], []]}'
_EVEN_TESTS = '["assert is_even(2) == True", "assert is_even(3) == False", "assert not is_even(-1)"]'

EXAMPLES: tuple[Example, ...] = (
    Example(
        _SUM_TESTS,
        right=(
            _block("print(sum(map(int, input().split())))"),
            "<answer>\n```py\na, b = map(int, input().split())\nprint(a + b)\nexit()\n```\n</answer>",
            _block("print(0)") + _block("import sys\nprint(eval('+'.join(sys.stdin.read().split())))"),
        ),
        wrong=(
            _block("print(3)"),
            _block("print(sum(map(int, input().split())))") + _block("print(0)"),
            _block("import sys\nprint('passed')\nsys.exit(0)"),
            _block("print(*range(-10, 10), sep='\\n')"),
            "<think>```python\nprint(sum(map(int, input().split())))\n```</think>I can't.",
        ),
    ),
    Example(
        _FLIP_TESTS,
        right=(
            _block("def flip(items):\n    return items[::-1]"),
            _block("class Solution:\n    def flip(self, items: List[int]) -> List[int]:\n        return items[::-1]"),
            _block("def flip(items):\n    print('noise')\n    return tuple(reversed(items))"),
        ),
        wrong=(
            _block("def flip(items):\n    return items"),
            _block("class Same(list):\n    def __eq__(self, other): return True\ndef flip(items): return Same()"),
            _block("import os\ndef flip(items): os._exit(0)"),
        ),
    ),
    Example(
        _EVEN_TESTS,
        right=(_block("def is_even(n):\n    return n % 2 == 0"), _block("is_even = lambda n: not n & 1")),
        wrong=(
            _block("def is_even(n):\n    return True"),
            _block("class Yes:\n    def __eq__(self, other): return True\ndef is_even(n): return Yes()"),
            _block("import builtins\nbuiltins.AssertionError = ValueError\ndef is_even(n): raise SystemExit(0)"),
        ),
    ),
)
