"""general-code: what counts as the program, the layouts of tests, comparisons."""

from __future__ import annotations

import json

import pytest

from rewards import score
from rewards.code.compare import same_output, same_value
from rewards.code.inside.wire import decode, encode
from rewards.code.suites import AssertTests, CallTests, InvalidTests, StdinTests, parse_suite
from rewards.sandbox import Capabilities, probe
from rewards.verifiers.general_code import EXAMPLES, extract_code
from tests.unit.rewards.escapes import grade_code as grade
from tests.unit.rewards.escapes import needs_namespaces

# the program


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("```python\na\n```", "a"),
        ("```\na\n\n b\n```", "a\n\n b"),
        ("~~~py\na\n~~~", "a"),
        ("````\n```\na\n```\n````", "```\na\n```"),
        ("```python\na\n```\nthen\n```python\nb\n```", "b"),
        ("```python\na\n```\nIt prints\n```text\nb\n```", "a"),
        ("```python\na\n```\n```python\nunfinished", "a"),
        ("<think>```python\na\n```</think>", None),
        ("<think>```python\na\n```\n", None),
        ("<think>x</think>```python\na\n```", "a"),
        ("say ```python\na\n```", None),  # a fence begins a line
        ("<think>x</think>\n```python\na\n```", "a"),
        ("```python\na\n```\n<answer>\n```python\nb\n```\n</answer>", "b"),
        ("<answer>print(1)</answer>", "print(1)"),
        ("<answer>```python\na</answer>", None),
        ("<answer>a</answer><answer>b</answer>", None),
        ("print(1)", None),
        ("```cpp\nint main() {}\n```", None),
        ("", None),
    ],
)
def test_the_program_of_a_completion(completion: str, code: str | None) -> None:
    assert extract_code(completion) == code


def test_extraction_takes_linear_time() -> None:
    assert extract_code("```" * 300_000) is None
    assert extract_code("```python\n" * 100_000) is None
    assert extract_code("`" * 1_000_000 + "\n" + "~" * 1_000_000) is None


# the layouts


@pytest.mark.parametrize(
    ("gold", "suite"),
    [
        ({"inputs": ["1\n"], "outputs": ["2\n"]}, StdinTests(("1\n",), ("2\n",))),
        ({"inputs": [["1", "2"]], "outputs": [["3"]], "fn_name": None}, StdinTests(("1\n2",), ("3",))),
        ([{"input": "1", "output": "2", "type": "stdin_stdout", "fn_name": None}], StdinTests(("1",), ("2",))),
        ({"language": "python", "test_cases": [{"input": "1", "output": "2"}]}, StdinTests(("1",), ("2",))),
        ({"input_output": '{"inputs": ["1"], "outputs": ["2"]}'}, StdinTests(("1",), ("2",))),
        ({"inputs": [[1, [2]]], "outputs": [3], "fn_name": "f"}, CallTests("f", ([1, [2]],), (3,))),
        ([{"input": '1\n"a"', "output": "[2]", "fn_name": "f"}], CallTests("f", ([1, "a"],), ([2],))),
        ({"test": "def check(c):\n    assert c(1) == 2", "entry_point": "f"}, ("check(f)",)),
        (["assert f(1) == 2", "assert f(2) == 3"], ("assert f(1) == 2", "assert f(2) == 3")),
        ({"test_list": ["assert f(1) == 2"], "test_setup_code": "import math"}, ("assert f(1) == 2",)),
        ({"assert_case": ["assert f(1) == 2"]}, ("assert f(1) == 2",)),
        ("from solution import f\nx = 1\nassert f(x) == 2\n", ("assert f(x) == 2",)),
        ("from solution import f\ndef test_a():\n    assert f(1) == 2\n", ("test_a()",)),
    ],
)
def test_layouts(gold: object, suite: object) -> None:
    parsed = parse_suite(gold if isinstance(gold, str) else json.dumps(gold), {})
    if isinstance(parsed, AssertTests):
        assert (parsed.tests, parsed.names) == (suite, ("f",))
    else:
        assert parsed == suite


def test_names_in_the_row() -> None:
    assert parse_suite('{"inputs": [[1]], "outputs": [2]}', {"fn_name": "f"}) == CallTests("f", ([1],), (2,))
    parsed = parse_suite("def check(c):\n    assert c(1)", {"entry_point": "f"})
    assert isinstance(parsed, AssertTests)
    assert parsed.tests == ("check(f)",)


@pytest.mark.parametrize(
    "gold",
    [
        "",
        "the code must add numbers",
        "def f(x): return x",
        "[]",
        "3",
        "{}",
        '{"inputs": ["1"], "outputs": []}',
        '{"inputs": [], "outputs": []}',
        '{"inputs": [{"a": 1}], "outputs": ["1"]}',
        '{"inputs": ["1"], "outputs": ["2"], "fn_name": "f"}[',
        '[{"input": "(1", "output": "2", "fn_name": "f"}]',
        '[{"input": "1", "output": "2", "fn_name": "f; g"}]',
        '[{"input": "1", "output": "2", "fn_name": "f"}, {"input": "1", "output": "2", "fn_name": "g"}]',
        '["f(1) == 2"]',
        '["assert f(1) =="]',
        "[" * 100_000,
        "assert " + "(" * 10_000,
        "assert " + "-" * 3_000 + "1",
    ],
)
def test_malformed_tests_are_an_invalid_gold(gold: str) -> None:
    with pytest.raises(InvalidTests):
        parse_suite(gold, {})
    assert grade("print(1)", gold).status == "invalid_gold"


# comparisons


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("3\n", "3", True),
        ("3 \n\n", "3\n", True),
        ("a  b", "a b", True),
        ("0.5000001", "0.5", True),
        ("5e-1", "0.5", True),
        ("3", "3.0", True),
        ("0.51", "0.5", False),
        ("3.0", "3", False),
        ("3\n4", "3 4", False),
        ("3 4", "3", False),
        ("", "3", False),
        ("passed", "3", False),
        ("nan", "0.5", False),
        ("a", "A", False),
        ("1000001", "1000000", False),
        ("0" * 50 + ".5", "0.5", False),
    ],
)
def test_same_output(printed: str, expected: str, same: bool) -> None:
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("returned", "expected", "same"),
    [
        (3, 3, True),
        (3.0, 3, True),
        (0.1 + 0.2, 0.3, True),
        ((1, [2]), [1, [2]], True),
        ({"1": "a", "2": "b"}, {"1": "a"}, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "a"}, {"1": "a"}, False),
        (True, 1, False),
        (1, True, False),
        (None, None, True),
        (0, None, False),
        ("3", 3, False),
        ([1], [1, 2], False),
        ({1, 2}, [1, 2], False),
        (10**400, 1.5, False),
        (float("nan"), 1, False),
    ],
)
def test_same_value(returned: object, expected: object, same: bool) -> None:
    assert same_value(returned, expected) is same


def test_values_cross_the_wall_as_plain_data() -> None:
    class Liar(list):  # type: ignore[type-arg]
        def __eq__(self, other: object) -> bool:
            return True

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter([1, 2, 3])

    value = {"a": (1, 2.5, None, True), 2: {3}, "b": b"\0", "c": 1j, "d": 10**30, "e": frozenset(), "f": float("inf")}
    crossed = decode(json.loads(json.dumps(encode(value, refer=None))))
    assert crossed == value
    assert type(crossed["a"]) is tuple
    liar = decode(json.loads(json.dumps(encode(Liar([4]), refer=None))))
    assert (type(liar), liar) == (list, [4])
    assert decode(encode(object(), refer=lambda value: 7)).opaque_key == 7
    nested: list[object] = []
    nested.append(nested)
    with pytest.raises(ValueError, match="nested"):
        encode(nested, refer=None)
    for wrong in ({"list": 1, "b": 2}, {"eval": "1"}, [1], {"int": "zz"}):
        with pytest.raises(ValueError):
            decode(wrong)


# grading


@needs_namespaces
@pytest.mark.parametrize("example", EXAMPLES, ids=["program", "calls", "asserts"])
def test_examples(example: object) -> None:
    for text in example.right:  # type: ignore[attr-defined]
        assert score(text, example.answer, "general-code").value == 1.0, text  # type: ignore[attr-defined]
    for text in example.wrong:  # type: ignore[attr-defined]
        assert score(text, example.answer, "general-code").value == 0.0, text  # type: ignore[attr-defined]


@needs_namespaces
def test_a_part_of_the_tests_is_logged_and_earns_nothing() -> None:
    result = grade("print(input())", {"inputs": ["1", "2", "3", "4"], "outputs": ["1", "2", "0", "4"]})
    assert (result.value, result.components["pass_fraction"]) == (0.0, 0.75)
    assert result.detail == "3 of 4 tests passed; test 3: another output was expected"


@needs_namespaces
def test_asserts_of_every_kind() -> None:
    code = """
class NotFound(Exception):
    pass

class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item); return self
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)

class Node:
    def __init__(self, key, line): self.key, self._line = key, line

SIZE = (1, 2)

def find(items, wanted):
    if wanted not in items:
        raise NotFound(wanted)
    return items.index(wanted)

def evens(n):
    return (2 * k for k in range(n))

def root(x):
    return x ** 0.5

def apply_twice(function, value):
    return function(function(value))
"""
    tests = """
import math

def is_close(a, b):
    return math.isclose(a, b)

assert find([1, 2], 2) == 1
assert is_close(root(2), 1.4142135623730951)
assert abs(root(2) - 1.41421) < 1e-4, "too far"
try:
    find([], 1)
except NotFound as exc:
    assert str(exc) == "1"
else:
    assert False
for n in range(3):
    assert list(evens(n)) == [2 * k for k in range(n)]
stack = Stack()
stack.push(3).push({"a": (1,)})
assert len(stack) == 2 and stack.pop() == {"a": (1,)} and stack.items == [3]
node = Node("k", 5)
assert node and node.key == "k" and node._line == 5
assert SIZE == (1, 2) and isinstance(SIZE, tuple)
assert apply_twice(root, 16) == 2.0
"""
    result = grade(code, tests)
    assert (result.value, result.detail) == (1.0, "9 of 9 tests passed")
    broken = grade(code.replace("** 0.5", "** 0.4").replace("NotFound(wanted)", "KeyError(wanted)"), tests)
    assert broken.components["pass_fraction"] == 5 / 9


@needs_namespaces
def test_tests_that_can_not_run_here_are_an_error() -> None:
    result = grade("def f(): return 1", "import no_such_module\nassert f() == 1")
    assert (result.status, result.value) == ("error", None)
    assert "no_such_module" in result.detail


def test_without_a_sandbox_the_grade_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REWARDS_SANDBOX", raising=False)
    monkeypatch.setattr(probe, "_found", Capabilities(False, "unshare: Operation not permitted"))
    for example in EXAMPLES:
        result = score(example.right[0], example.answer, "general-code")
        assert (result.status, result.value) == ("error", None)
        assert "unshare" in result.detail


def test_a_program_that_is_too_long_is_wrong() -> None:
    assert grade("#" * 200_000, {"inputs": ["1"], "outputs": ["1"]}).value == 0.0


# verdicts that can't be forged
