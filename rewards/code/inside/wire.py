"""Values as JSON lines, with the types that JSON does not have. Used on both sides of the sandbox's wall.

Only plain data crosses: whatever class an untrusted value has, and whatever its `__eq__` says, what arrives is a
number, a text, a container of them, or a reference to something that stays where it is.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 60
_SMALL = 2**53

_CONTAINERS: tuple[tuple[type, str], ...] = (
    (list, "list"),
    (tuple, "tuple"),
    (set, "set"),
    (frozenset, "frozenset"),
)


class Opaque:
    """Stands for a value that is not data; the key names it where it lives."""

    def __init__(self, key: int | str) -> None:
        self.opaque_key = key


def encode(value: Any, refer: Any, depth: int = 0) -> Any:
    """`value` as JSON data; `refer(value)` gives the key of one that is not data.

    Raises:
        ValueError: nested deeper than `MAX_DEPTH`.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"the value is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        number = int.__int__(value)
        return number if -_SMALL < number < _SMALL else {"int": hex(number)}
    if isinstance(value, float):
        return {"float": float.__repr__(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[encode(item, refer, depth + 1) for item in pair] for pair in dict.items(value)]}
    for kind, name in _CONTAINERS:
        if isinstance(value, kind):
            return {name: [encode(item, refer, depth + 1) for item in kind.__iter__(value)]}  # type: ignore[attr-defined]
    return {"opaque": refer(value)}


def decode(data: Any, opaque: Any = Opaque) -> Any:
    """The value behind JSON data; `opaque(key)` makes what stands for a reference.

    Raises:
        ValueError, TypeError, RecursionError: not the data of `encode`.
    """
    if data is None or isinstance(data, (bool, int, float, str)):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise ValueError(f"{data!r:.60} is no encoded value")
    ((kind, content),) = data.items()
    match kind:
        case "int":
            return int(content, 16)
        case "float":
            return float(content)
        case "complex":
            return complex(float(content[0]), float(content[1]))
        case "bytes":
            return bytes.fromhex(content)
        case "opaque":
            return opaque(content)
        case "dict":
            return {decode(key, opaque): decode(item, opaque) for key, item in content}
        case "list" | "tuple" | "set" | "frozenset":
            make = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind]
            return make([decode(item, opaque) for item in content])
    raise ValueError(f"{kind!r} is no kind of encoded value")
