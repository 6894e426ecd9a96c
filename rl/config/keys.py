"""The keys of a config model by dotted name: for the reference that `rl config keys` prints, and for error messages."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

REQUIRED = "required"
ANY_NAME, ANY_INDEX = "NAME", "N"
"""Stand in dotted names for a key of the user's own and for the place in a list."""
DEFAULT_CHARS = 60
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_WORDS = {bool: "bool", int: "int", float: "float", str: "text", type(None): "null"}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, or a section of them."""

    name: str
    """Dotted, as on the command line."""
    type: str
    default: str
    """As YAML; `required` where there is none, empty for a section that stands by itself."""
    meaning: str


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a model and of the sections below it, in the order of the files."""
    for name, field in model.model_fields.items():
        dotted, inner = f"{prefix}{name}", _sections(field.annotation)
        yield Key(dotted, _type(field.annotation, field), _default(field, bool(inner)), _meaning(field, inner))
        yield from _merged([(_choice(section), list(keys_of(section, f"{dotted}.{way}"))) for section, way in inner])


def written_key(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[list[str], type[BaseModel] | None]:
    """The place of a validation error as it stands in a file, without pydantic's names for members of a union; and the
    model that holds, or was to hold, the last part."""
    parts: list[str] = []
    annotation: Any = model
    owner: type[BaseModel] | None = model
    for part in loc:
        annotation, tagged = _member(annotation, part)
        if tagged:
            continue
        parts.append(str(part))
        owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
        annotation = _below(annotation, part)
    return parts, owner


def _below(annotation: Any, part: str | int) -> Any:
    """What a part of a dotted name leads to from here; None where nothing is known of it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(part))
        return None if field is None else field.annotation
    arguments = get_args(annotation)
    if get_origin(annotation) in (dict, Mapping):
        return arguments[1]
    if get_origin(annotation) in (tuple, list) and isinstance(part, int):
        alike = Ellipsis in arguments or len(arguments) == 1
        return arguments[0 if alike else min(part, len(arguments) - 1)]
    return None


def _member(annotation: Any, part: str | int) -> tuple[Any, bool]:
    """The annotation without null and wrappings, and whether `part` names one of its members and is no key."""
    members = _members(annotation)
    if len(members) == 1:
        plain, _ = members[0]
        is_leaf = plain is not None and not _sections(plain) and get_origin(plain) not in (dict, Mapping, tuple, list)
        return plain, is_leaf
    for plain, tag in members:
        if part in (tag, _choice_value(plain), getattr(plain, "__name__", None)):
            return plain, True
    return None, bool(members)


def _members(annotation: Any) -> list[tuple[Any, str | None]]:
    """(annotation, tag) of the members of a union besides null; of anything else, itself."""
    tag = None
    while get_origin(annotation) is Annotated:
        annotation, *notes = get_args(annotation)
        tag = next((str(note.tag) for note in notes if isinstance(note, Tag)), tag)
    if get_origin(annotation) not in (Union, types.UnionType):
        return [(annotation, tag)]
    found = [_members(inner) for inner in get_args(annotation) if inner is not type(None)]
    return [member for members in found for member in members]


def scalars(annotation: Any) -> set[Any]:
    """The plain types that an annotation takes by itself or as items of a list; what lies in sections is theirs."""
    found: set[Any] = set()
    for plain, _ in _members(annotation):
        if get_origin(plain) in (tuple, list):
            found = found.union(*(scalars(item) for item in get_args(plain) if item is not Ellipsis))
        else:
            found.add(plain)
    return found


def _sections(annotation: Any) -> list[tuple[type[BaseModel], str]]:
    """The models below an annotation, each with what stands between its name and their keys."""
    found: list[tuple[type[BaseModel], str]] = []
    for plain, _ in _members(annotation):
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            found.append((plain, ""))
        elif get_origin(plain) in (dict, Mapping):
            found += [(model, f"{ANY_NAME}.{way}") for model, way in _sections(get_args(plain)[1])]
        elif get_origin(plain) in (tuple, list):
            found += [(model, f"{ANY_INDEX}.{way}") for model, way in _sections(get_args(plain)[0])]
    return found


def _merged(branches: Sequence[tuple[str, list[Key]]]) -> Iterator[Key]:
    """Keys of the sections that may stand in one place; those that only some know, or that differ, say of which."""
    seen: dict[Key, list[str]] = {}
    for choice, keys in branches:
        for key in keys:
            seen.setdefault(key, []).append(choice)
    for key, choices in seen.items():
        said = f"({', '.join(filter(None, choices))}) " if len(choices) < len(branches) and any(choices) else ""
        yield replace(key, meaning=(said + key.meaning).strip())


def _choice(model: type[BaseModel]) -> str:
    value = _choice_value(model)
    return f"kind: {value}" if value else ""


def _choice_value(model: Any) -> str | None:
    """The value of the key `kind` that chooses this model among others."""
    field = model.model_fields.get("kind") if isinstance(model, type) and issubclass(model, BaseModel) else None
    values = get_args(field.annotation) if field is not None and get_origin(field.annotation) is Literal else ()
    return str(values[0]) if len(values) == 1 else None


def _type(annotation: Any, field: FieldInfo | None = None) -> str:
    bounds = [
        f" {sign} {_number(getattr(note, name))}"
        for note in (field.metadata if field else ())
        for name, sign in _BOUNDS.items()
        if isinstance(getattr(note, name, None), int | float)
    ]
    members = [_word(plain) for plain, _ in _members(annotation)]
    optional = ["null"] if type(None) in get_args(annotation) else []
    return " | ".join(dict.fromkeys([*members[:-1], members[-1] + " and".join(bounds), *optional]))


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _word(plain: Any) -> str:
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is Literal:
        return " | ".join("null" if value is None else str(value) for value in arguments)
    if origin in (tuple, list):
        if Ellipsis in arguments or len(arguments) == 1:
            return f"list of {_type(arguments[0])}"
        return f"[{', '.join(map(_type, arguments))}]"
    if origin in (dict, Mapping):
        return f"{ANY_NAME}: {_type(arguments[1])}"
    if isinstance(plain, type) and issubclass(plain, BaseModel):
        return "section"
    return _WORDS.get(plain, str(getattr(plain, "__name__", plain)))


def _default(field: FieldInfo, is_section: bool) -> str:
    if field.is_required():
        return REQUIRED
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if is_section and value:
        value = [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in value]
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= DEFAULT_CHARS else text[: DEFAULT_CHARS - 4] + " ..."


def _meaning(field: FieldInfo, inner: Sequence[tuple[type[BaseModel], str]]) -> str:
    """The field's own words, or the first paragraph about the section."""
    said = field.description or (inner[0][0].__doc__ if len(inner) == 1 else "") or ""
    return " ".join(said.partition("\n\n")[0].split())
