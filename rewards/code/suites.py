"""Reading the tests of a row, in the layouts that public data sets use.

- Programs with stdin and stdout: `{"inputs": [...], "outputs": [...]}` (APPS, TACO, PRIME, verl, AReaL), or a list of
  `{"input", "output"}` (open-r1's `test_cases`, LiveCodeBench).
- Calls: the same with `"fn_name"`; each input is the list of arguments, or a text with one JSON value a line.
- Asserts: a list of statements (MBPP's `test_list`, AceCode), `{"assert_case": [...]}` (verl), Python text with asserts
  or `test_*` functions (KodCode), or `{"test": ..., "entry_point": ...}` with a `check(candidate)` (HumanEval).
"""

from __future__ import annotations

import ast
import builtins
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_TESTS = 1_000
MAX_CHARS = 32 * 2**20

_ASSERT_KEYS = ("test_list", "assert_case", "asserts", "tests")
_NAME_KEYS = ("fn_name", "func_name", "function_name")


class InvalidTests(ValueError):
    """The gold answer holds no tests that can be run."""


@dataclass(frozen=True, slots=True)
class StdinTests:
    """What a program reads, and what it must print."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CallTests:
    """Arguments of a function, and what it must return."""

    name: str
    arguments: tuple[list[Any], ...]
    expected: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AssertTests:
    """Test code; a test passes if it raises nothing."""

    setup: str
    tests: tuple[str, ...]
    names: tuple[str, ...]
    """Names that the tests use and don't define: what the program under test has to provide."""


Suite = StdinTests | CallTests | AssertTests


def parse_suite(answer: str, sample: Mapping[str, Any]) -> Suite:
    """The tests in a gold answer; `fn_name` or `entry_point` may stand in the row instead.

    Raises:
        InvalidTests: there are none, or they are malformed.
    """
    if len(answer) > MAX_CHARS:
        raise InvalidTests(f"the tests have {len(answer)} characters, over {MAX_CHARS}")
    try:
        return _suite_of_text(answer, sample)
    except RecursionError as exc:
        raise InvalidTests("the tests are nested too deep") from exc


def _suite_of_text(text: str, sample: Mapping[str, Any]) -> Suite:
    try:
        data = json.loads(text)
    except ValueError:
        return _asserts_of_text(text, "", _entry_point({}, sample))
    if isinstance(data, str):
        return _asserts_of_text(data, "", _entry_point({}, sample))
    if isinstance(data, list):
        return _suite_of_list(data, sample, {})
    if isinstance(data, dict):
        return _suite_of_object(data, sample)
    raise InvalidTests(f"a JSON {type(data).__name__} is no set of tests")


def _suite_of_object(data: dict[str, Any], sample: Mapping[str, Any]) -> Suite:
    for nested in ("input_output", "test_cases"):
        inner = data.get(nested)
        if isinstance(inner, str):
            return _suite_of_text(inner, {**sample, **_named(data)})
        if isinstance(inner, dict):
            return _suite_of_object({**_named(data), **inner}, sample)
        if isinstance(inner, list):
            return _suite_of_list(inner, sample, data)
    for key in _ASSERT_KEYS:
        if isinstance(data.get(key), list):
            return _suite_of_list(data[key], sample, data)
    if isinstance(data.get("test"), str):
        setup = "\n".join(map(str, data.get("test_imports") or []))
        return _asserts_of_text(data["test"], setup, _entry_point(data, sample))
    inputs, outputs = data.get("inputs", data.get("input")), data.get("outputs", data.get("output"))
    if isinstance(inputs, str) and isinstance(outputs, str):
        inputs, outputs = [inputs], [outputs]
    if isinstance(inputs, list) and isinstance(outputs, list):
        return _pairs(inputs, outputs, _function_name(data, sample))
    raise InvalidTests(
        f"an object with {', '.join(map(repr, list(data)[:8])) or 'nothing'} holds no tests that are known"
    )


def _suite_of_list(items: list[Any], sample: Mapping[str, Any], around: Mapping[str, Any]) -> Suite:
    if not items:
        raise InvalidTests("there are no tests")
    if all(isinstance(item, str) for item in items):
        lines = [str(around.get("test_setup_code") or ""), *map(str, around.get("test_imports") or [])]
        return _asserts_of_list(items, "\n".join(lines))
    if not all(isinstance(item, dict) and "input" in item and "output" in item for item in items):
        raise InvalidTests("a list of tests holds assert statements, or objects with 'input' and 'output'")
    names = {_function_name({**_named(around), **item}, sample) for item in items}
    if len(names) > 1:
        raise InvalidTests(f"the tests call several functions: {sorted(map(str, names))[:5]}")
    return _pairs([item["input"] for item in items], [item["output"] for item in items], names.pop())


def _pairs(inputs: list[Any], outputs: list[Any], name: str | None) -> Suite:
    if len(inputs) != len(outputs) or not 0 < len(inputs) <= MAX_TESTS:
        raise InvalidTests(f"{len(inputs)} inputs and {len(outputs)} outputs; there must be as many, 1 to {MAX_TESTS}")
    if name is None:
        return StdinTests(tuple(map(_text, inputs)), tuple(map(_text, outputs)))
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidTests(f"{name!r} is no name of a function")
    written = [isinstance(item, str) for item in (*inputs, *outputs)]
    if all(written):  # each argument is JSON on a line of its own
        return CallTests(name, tuple(map(_json_lines, inputs)), tuple(_json(item) for item in outputs))
    arguments = tuple(item if isinstance(item, list) else [item] for item in inputs)
    return CallTests(name, arguments, tuple(outputs))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    raise InvalidTests(f"what a program reads or prints is text, not {value!r:.60}")


def _json_lines(text: str) -> list[Any]:
    return [_json(line) for line in text.splitlines() if line.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidTests(f"{text!r:.60} is no JSON value: {exc}") from exc


def _named(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in (*_NAME_KEYS, "entry_point") if data.get(key)}


def _function_name(data: Mapping[str, Any], sample: Mapping[str, Any]) -> str | None:
    for source in (data, sample):
        for key in _NAME_KEYS:
            if isinstance(source.get(key), str) and source[key]:
                return str(source[key])
    return None


def _entry_point(data: Mapping[str, Any], sample: Mapping[str, Any]) -> str | None:
    for source in (data, sample):
        if isinstance(source.get("entry_point"), str):
            return str(source["entry_point"])
    return None


def _asserts_of_list(statements: Sequence[str], setup: str) -> AssertTests:
    trees = [_parse(text) for text in (setup, *statements)]
    if len(statements) > MAX_TESTS or not all(map(_has_assert, trees[1:])):
        raise InvalidTests(f"each of at most {MAX_TESTS} tests must be an assert statement")
    return AssertTests(setup, tuple(statements), _free_names(trees))


def _asserts_of_text(text: str, setup: str, entry_point: str | None) -> AssertTests:
    """One test for each top-level statement with an assert, each `test_*` function, and `check(entry_point)`."""
    before: list[str] = [setup]
    tests: list[str] = []
    tree = _parse(text)
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "solution":
            continue  # the program under test has these names anyway
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            before.append(ast.unparse(node))
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test") and not node.args.args:
                tests.append(f"{node.name}()")
            elif isinstance(node, ast.FunctionDef) and node.name == "check" and entry_point:
                tests.append(f"check({entry_point})")
        else:
            (tests if _has_assert(node) else before).append(ast.unparse(node))
    if not tests or len(tests) > MAX_TESTS or not _has_assert(tree):
        raise InvalidTests("the text is no JSON and holds no assert statements to run")
    whole = "\n".join([*before, *tests])
    return AssertTests("\n".join(before), tuple(tests), _free_names([_parse(whole)]))


def _parse(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise InvalidTests(f"the tests are neither JSON nor Python: {exc!s:.100}") from exc


def _has_assert(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Assert) for part in ast.walk(node))


def _free_names(trees: Sequence[ast.AST]) -> tuple[str, ...]:
    used: set[str] = set()
    bound: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
    return tuple(sorted(used - bound - set(dir(builtins))))
