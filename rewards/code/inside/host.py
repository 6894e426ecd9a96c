"""Hosts the code under test: loads it, then answers calls. Runs inside the sandbox, together with hostile code.

Nothing here decides whether an answer is right, and no expected value ever gets here: code that takes this process over
has gained nothing but another way to give its own answers.

One request and one reply a line. A request holds `id`, `do`, `on` (a name, or the key of an opaque value), `args` and
`kwargs`; a reply `id` and `value` or `raised`.
"""

from __future__ import annotations

import builtins
import inspect
import itertools
import json
import os
import sys
import typing
from collections.abc import Callable
from typing import Any

from wire import decode, encode

_MAX_ITEMS = 100_000

_objects: list[Any] = []


def main() -> None:
    """Answer requests until there are no more."""
    requests, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what the code prints is no reply
    namespace, problem = _load()
    for line in requests:
        request = json.loads(line)
        try:
            if problem is not None:
                raise problem
            reply = {"id": request["id"], "value": encode(_answer(namespace, request), _refer)}
        except BaseException as exc:  # also SystemExit: another call may do better
            reply = {"id": request["id"], "raised": [type(exc).__name__, str(exc)[:300]]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _load() -> tuple[dict[str, Any], BaseException | None]:
    """The namespace of the code, and why there is none; the names of typing are there, as on programming sites."""
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
    namespace = {name: getattr(typing, name) for name in typing.__all__} | {"__name__": "solution"}
    try:
        with open("solution.py", encoding="utf-8") as file:
            exec(compile(file.read(), "solution.py", "exec"), namespace)
    except BaseException as exc:
        return {}, exc
    return namespace, None


def _answer(namespace: dict[str, Any], request: dict[str, Any]) -> Any:
    def look_up(key: str | int) -> Any:
        return _find(namespace, key) if isinstance(key, str) else _objects[key]

    args, kwargs = decode(request["args"], look_up), decode(request["kwargs"], look_up)
    if request["do"] == "describe":
        return {name: _kind(namespace[name]) for name in args if name in namespace}
    return _OPERATIONS[request["do"]](look_up(request["on"]), *args, **kwargs)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "value": lambda target: target,
    "call": lambda target, *args, **kwargs: target(*args, **kwargs),
    "get": getattr,
    "item": lambda target, key: target[key],
    "len": len,
    "bool": bool,
    "list": lambda target: list(itertools.islice(target, _MAX_ITEMS)),
    "text": str,
}


def _find(namespace: dict[str, Any], name: str) -> Any:
    """`f`, `Class.method` on a new instance, or a method of `Solution` where there is no `f`."""
    first, *rest = name.split(".")
    if first not in namespace and "Solution" in namespace:
        first, rest = "Solution", [first, *rest]
    if first not in namespace:
        raise NameError(f"the code defines no {first!r}")
    target = namespace[first]
    for part in rest:
        target = getattr(target() if inspect.isclass(target) else target, part)
    return target


def _kind(value: Any) -> str:
    if inspect.isclass(value) and issubclass(value, Exception):
        return "exception"
    return "callable" if callable(value) else "value"


def _refer(value: Any) -> int:
    _objects.append(value)
    return len(_objects) - 1


if __name__ == "__main__":
    main()
