"""Runs test code (asserts) against code under test that lives in another sandbox. No hostile code runs in here.

Names that the tests use and do not define stand for what the code under test defines: calling one sends the call over
stdin and stdout, and gives plain data back (see `wire`), whose comparisons are Python's own. The verdict is a file.
"""

from __future__ import annotations

import builtins
import json
import os
from collections.abc import Iterator
from typing import Any

from wire import Opaque, decode, encode

_MAX_LINE = 16 * 2**20


class Line:
    """The connection to the code under test."""

    def __init__(self) -> None:
        self._replies, self._requests = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        self._count = 0
        self._exceptions: dict[str, type[Exception]] = {}

    def ask(self, do: str, on: str | int | None, args: Any = (), kwargs: Any = None) -> Any:
        """The answer to one request; what the code raises is raised here."""
        self._count += 1
        request = {"id": self._count, "do": do, "on": on, "args": _pack(list(args)), "kwargs": _pack(kwargs or {})}
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()
        while True:
            line = self._replies.readline(_MAX_LINE)
            if not line.endswith(b"\n"):
                raise EOFError("the code under test has ended, or its answer is too long")
            reply = json.loads(line)
            if isinstance(reply, dict) and reply.get("id") == self._count:  # an older one was not waited for
                break
        if "raised" in reply:
            name, text = reply["raised"]
            raise self.exception(str(name))(str(text))
        return decode(reply.get("value"), lambda key: Remote(self, key))

    def exception(self, name: str) -> type[Exception]:
        """The built-in exception of that name, else one made for it, as for those that would only end a loop early:
        `all(map(test, cases))` must not pass because the code under test has raised StopIteration."""
        known = getattr(builtins, name, None)
        ends_loops = name in ("StopIteration", "StopAsyncIteration")
        if isinstance(known, type) and issubclass(known, Exception) and not ends_loops:
            return known
        return self._exceptions.setdefault(name, type(name, (Exception,), {}))


class Remote(Opaque):
    """Something that is not data, used where it is. Equal to itself alone: its own `__eq__` has no say in a test."""

    def __init__(self, line: Line, key: str | int) -> None:
        super().__init__(key)
        self.opaque_line = line

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.opaque_line.ask("call", self.opaque_key, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.opaque_line.ask("get", self.opaque_key, [name])

    def __getitem__(self, key: Any) -> Any:
        return self.opaque_line.ask("item", self.opaque_key, [key])

    def __bool__(self) -> bool:
        return bool(self.opaque_line.ask("bool", self.opaque_key))

    def __len__(self) -> int:
        return int(self.opaque_line.ask("len", self.opaque_key))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.opaque_line.ask("list", self.opaque_key))

    def __str__(self) -> str:
        return str(self.opaque_line.ask("text", self.opaque_key))


def _pack(value: Any) -> Any:
    def refer(item: Any) -> Any:
        if isinstance(item, Remote):
            return item.opaque_key
        raise TypeError(f"a {type(item).__name__} can't be handed to the code under test")

    return encode(value, refer)


def main() -> None:
    """Run the tests and write `verdict.json`."""
    line = Line()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with open("tests.json", encoding="utf-8") as file:
        plan = json.load(file)
    verdict = _examine(plan, line)
    with open("verdict.json", "w", encoding="utf-8") as file:
        json.dump(verdict, file)


def _examine(plan: dict[str, Any], line: Line) -> dict[str, Any]:
    """`failures`: for each test null, or what went wrong; `setup`: null, or why the tests themselves can't be run."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    kinds = line.ask("describe", None, plan["names"])
    for name in plan["names"]:  # and no others: an answer must not bring an `abs` of its own
        kind = kinds.get(name)
        if kind is None:
            continue
        if kind == "exception":
            namespace[name] = line.exception(name)
        else:
            namespace[name] = Remote(line, name) if kind == "callable" else line.ask("value", name)
    try:
        exec(compile(plan["setup"], "setup.py", "exec"), namespace)
    except ImportError as exc:
        return {"setup": str(exc), "failures": []}
    except Exception as exc:  # it may have called the code under test
        return {"setup": None, "failures": [_describe(exc)] * len(plan["tests"])}
    failures: list[str | None] = []
    for test in plan["tests"]:
        try:
            exec(compile(test, "tests.py", "exec"), namespace)
        except Exception as exc:
            failures.append(_describe(exc))
        else:
            failures.append(None)
    return {"setup": None, "failures": failures}


def _describe(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc!s:.200}"


if __name__ == "__main__":
    main()
