"""Names in braces inside config values, such as `{out}`, that a pipeline fills before the config is validated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

RESERVED = ("out", "seed")
"""Names that every pipeline fills; other names come from its `vars`."""

_NAME = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


def fill(node: Any, variables: Mapping[str, Any]) -> Any:
    """Return a copy of `node` with the known names filled; names that are not in `variables` stay as they are.

    A text that is exactly one name takes the variable's value and type: `"{seed}"` becomes the number. Keys are
    left alone.
    """
    if isinstance(node, dict):
        return {key: fill(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [fill(value, variables) for value in node]
    if not isinstance(node, str):
        return node
    whole = _NAME.fullmatch(node)
    if whole and whole[1] in variables:
        return variables[whole[1]]
    return _NAME.sub(lambda match: str(variables.get(match[1], match[0])), node)


def unfilled(node: Any, key: str = "") -> list[str]:
    """Dotted keys of the values in `node` that still hold a reserved name."""
    if isinstance(node, dict):
        items = [(str(name), value) for name, value in node.items()]
    elif isinstance(node, list):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        left = isinstance(node, str) and any(name in RESERVED for name in _NAME.findall(node))
        return [key] if left else []
    return [found for name, value in items for found in unfilled(value, f"{key}.{name}" if key else name)]
