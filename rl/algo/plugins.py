"""User code by import path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from rl.errors import ConfigError


def load_function(path: str, role: str) -> Callable[..., Any]:
    """The function at `module:name`.

    Raises:
        ConfigError: the module can't be imported, or has no such function.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as exc:
        raise ConfigError(
            f"{role} {path!r}: module {module!r} can't be imported ({exc}); install it on every machine of the run or "
            "put its folder on PYTHONPATH"
        ) from exc
    if not callable(found):
        raise ConfigError(f"{role} {path!r}: module {module!r} has no function {name!r}; name one that it has")
    function: Callable[..., Any] = found
    return function
