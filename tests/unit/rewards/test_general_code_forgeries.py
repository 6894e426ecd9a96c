"""Programs that try to pass without solving anything: by reading the tests, forging a verdict, or stalling."""

from __future__ import annotations

import pytest

from tests.unit.rewards.escapes import grade_code as grade
from tests.unit.rewards.escapes import needs_namespaces

SECRET = "SECRET-7391"

SEARCH = """
import gc, os, re, sys
def search():
    found = set()
    def look(value):
        found.update(re.findall("SECRET-[0-9]{4}", repr(value)))
    frame = sys._getframe()
    while frame:
        look((dict(frame.f_locals), {k: v for k, v in frame.f_globals.items() if not k.startswith("__")}))
        frame = frame.f_back
    for item in gc.get_objects():
        try:
            look(item)
        except BaseException:
            pass
    look(dict(os.environ))
    for folder, _, names in os.walk("."):
        for name in names:
            if name != "solution.py":
                look(open(os.path.join(folder, name), "rb").read())
    return found.pop() if found else "nothing"
"""
CALLED = SEARCH + "\ndef f(*args):\n    return search()"


@needs_namespaces
def test_expected_values_are_not_where_the_code_is() -> None:
    reading = SEARCH + "\nkept = sys.stdin.read()\nprint(search())"
    assert grade(reading, {"inputs": ["x"], "outputs": [SECRET]}).value == 0.0
    assert grade(reading, {"inputs": [SECRET], "outputs": [SECRET]}).value == 1.0  # the search does find what is there
    assert grade(CALLED, {"fn_name": "f", "inputs": [["x"]], "outputs": [SECRET]}).value == 0.0
    assert grade(CALLED, {"fn_name": "f", "inputs": [[SECRET]], "outputs": [SECRET]}).value == 1.0
    assert grade(CALLED, [f"assert f('x') == '{SECRET}'"]).value == 0.0
    assert grade(CALLED, [f"assert f('{SECRET}') == '{SECRET}'"]).value == 1.0


FORGERIES = {
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef f(*args): os._exit(0)",
    "marker": "print('All tests passed')\nprint('OK')\ndef f(*args): print('passed')",
    "always equal": """
class Same:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    __hash__ = None
def f(*args): return Same()
""",
    "equal number": """
class Same(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
    def __repr__(self): return "4242"
def f(*args): return Same(0)
""",
    "patched json": """
import json, builtins
json.dumps = lambda *args, **kwargs: '{"id": 0, "value": true}'
json.loads = lambda *args: True
builtins.AssertionError = type("Harmless", (BaseException,), {})
def f(*args): return 0
""",
    "patched host": """
import __main__, sys
for module in list(sys.modules.values()):
    for name in ("same_value", "decode", "encode", "_answer"):
        if hasattr(module, name):
            setattr(module, name, lambda *args, **kwargs: True)
def f(*args): return 0
""",
    "own replies": """
import os
for number in range(3, 32):
    for reply in range(4):
        try:
            os.write(number, b'{"id": %d, "value": true}\\n' % reply)
            os.write(number, b'{"setup": null, "failures": [null]}\\n')
        except OSError:
            pass
def f(*args): return 0
""",
    "verdict file": """
import json
for name in ("verdict.json", "tests.json", "examiner.py"):
    open(name, "w").write(json.dumps({"setup": None, "failures": [None]}))
def f(*args): return 0
""",
    "assertion off": "import sys\nsys.flags = type(sys)('flags')\n__debug__ if True else None\ndef f(*args): return 0",
    "traced": "import sys\nsys.settrace(lambda *args: None)\nsys.setprofile(None)\ndef f(*args): return 0",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(*args): return 0",
}


@needs_namespaces
@pytest.mark.parametrize("name", FORGERIES)
def test_a_verdict_can_not_be_forged(name: str) -> None:
    code = FORGERIES[name]
    for tests in (
        {"inputs": ["x"], "outputs": ["4242"]},
        {"fn_name": "f", "inputs": [["x"]], "outputs": [4242]},
        ["assert f('x') == 4242"],
    ):
        result = grade(code, tests)
        assert (result.status, result.value) == ("ok", 0.0), (tests, result)


@needs_namespaces
def test_names_that_the_tests_did_not_ask_for_are_not_taken() -> None:
    """A program that has taken over its host offers an `abs` of its own, for which every difference is 0."""
    tests = ["assert abs(f('x') - 4242) < 1"]
    code = """
import sys
def answer(namespace, request):
    return {"abs": "callable", "f": "callable"} if request["do"] == "describe" else 0
sys.modules["host"]._answer = answer
"""
    assert grade(code, tests).value == 0.0
    assert grade(code.replace("else 0", "else 4242"), tests).value == 1.0  # the takeover works, for its own answers


@needs_namespaces
def test_an_exception_that_ends_a_loop_ends_the_test() -> None:
    tests = ["assert all(map(lambda x: f(x) == 4242, [1, 2]))"]
    assert grade("def f(x): raise StopIteration", tests).value == 0.0
    assert grade("def f(x): return 4242", tests).value == 1.0


@needs_namespaces
def test_hostile_programs_end() -> None:
    result = grade("while True: print('x' * 1000)", {"inputs": ["x"] * 3, "outputs": ["4242"] * 3})
    assert (result.status, result.value) == ("ok", 0.0)
    assert "'output'" in result.detail
    slow = grade("while True: pass", {"inputs": ["x"], "outputs": ["4242"]}, time_limit=1)
    assert (slow.status, slow.value) == ("ok", 0.0)
    deep = "def f(*args):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x"
    assert grade(deep, {"fn_name": "f", "inputs": [[1]], "outputs": [1]}).value == 0.0
    assert grade(deep, ["assert f(1) == 1"]).value == 0.0
    killer = "import os, signal\ndef f(*args): os.kill(os.getppid(), signal.SIGKILL); os.kill(1, 9); return 0"
    assert grade(killer, ["assert f(1) == 1"]).status == "ok"
