"""Strict configs: YAML plus dotted overrides into frozen pydantic models; unknown keys name the nearest known ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rewards.names import did_you_mean
from rl.config.keys import keys_of, scalars, written_key
from rl.errors import ConfigError


class StrictModel(BaseModel):
    """Base of every config: frozen, no unknown keys, defaults validated, numbers finite and never from true or false. A
    text after a field is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, raw: Any) -> Any:
        """Not a validator of the fields, which a key that chooses among sections may not have."""
        values = raw if isinstance(raw, Mapping) else {}
        problems = {name: _other_kind(field.annotation, values.get(name)) for name, field in cls.model_fields.items()}
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("other_kind", "{said}", {"said": said}), loc=(name,), input=values[name]
            )
            for name, said in problems.items()
            if said is not None
        ]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return raw


def _other_kind(annotation: Any, value: Any) -> str | None:
    """What is wrong with a boolean in place of a number, or the other way round; pydantic would convert it."""
    kinds = scalars(annotation)
    items = value if isinstance(value, (list, tuple)) else [value]
    if kinds & {int, float} and bool not in kinds and any(isinstance(item, bool) for item in items):
        return "true and false are no numbers (true would count as 1); set a number"
    if kinds == {bool} and any(isinstance(item, (int, float, str)) and not isinstance(item, bool) for item in items):
        return "it is switched on or off; set true or false"
    return None


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Every generator that a run draws from, NumPy's among them, takes seeds of this range."""
Steps = Annotated[int, Field(ge=1, le=10**9)]


ConfigT = TypeVar("ConfigT", bound=StrictModel)

_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+")
SHOWN_CHARS = 200
"""How much of a wrong value an error message repeats."""
SHOWN_NAMES = 4
_OF_A_SECTION = ("value_error", "union_tag_not_found", "union_tag_invalid")


class _Loader(yaml.SafeLoader):
    """YAML where `1e-4` is a number (YAML 1.1 reads a text there), `1:30` a text (YAML 1.1 reads 90 there), and a key
    given twice is an error."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value in seen:
                problem = f"key {key_node.value!r} is given twice; only one of the values could count"
                raise yaml.composer.ComposerError(None, None, problem, key_node.start_mark)
            if isinstance(key_node, yaml.ScalarNode):
                seen.add(key_node.value)
        return node

    def construct_yaml_int(self, node: Any) -> Any:
        return node.value if ":" in node.value else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: Any) -> Any:
        return node.value if ":" in node.value else super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """Writes a text that `_Loader` would read as a number in quotes."""


for _style in (_Loader, _Dumper):
    _style.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{_FLOAT.pattern}$"), list("-+0123456789."))


def load_config(model: type[ConfigT], path: str | Path, overrides: Sequence[str] = ()) -> ConfigT:
    """Read a YAML file, apply `a.b=value` overrides and validate.

    Raises:
        ConfigError: unreadable file, malformed override, unknown key (with the nearest known keys), wrong value.
    """
    return parse_config(model, apply_overrides(read_yaml(path), overrides), where=str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, not validated; an empty file is an empty mapping.

    Raises:
        ConfigError: unreadable file, not YAML, a key given twice, not a mapping.
    """
    path = Path(path)
    try:
        raw = yaml.load(path.read_text(), Loader=_Loader)
    except FileNotFoundError as exc:
        raise ConfigError(f"config file {path} does not exist; give the path of a YAML file") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"config file {path} can't be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{path} is not valid YAML: {exc}") from exc
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds a {type(raw).__name__}; a config is a mapping of keys to values")
    return raw


def parse_config(model: type[ConfigT], raw: dict[str, Any], *, where: str = "config") -> ConfigT:
    """Validate a mapping; see `load_config` for what is raised."""
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        lines = [_explain(model, error) for error in exc.errors()]
        raise ConfigError(f"{where} can't be used:\n  " + "\n  ".join(lines)) from exc


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `raw` with each `dotted.key=yaml-value` set; later ones win.

    A part that is a number indexes a list (`steps.0.run=sft`). Sections that are missing or empty are made.
    """
    result = _deep_copy(raw)
    for item in overrides:
        key, sep, text = item.partition("=")
        parts = key.strip().split(".")
        if not sep or not all(parts):
            raise ConfigError(f"override {item!r} is not of the form section.key=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as exc:
            raise ConfigError(f"override {item!r}: the value is not valid YAML: {exc}") from exc
        _assign(result, parts, value, f"override {item!r}")
    return result


def set_values(raw: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """As `apply_overrides` for values that are no text: `{"data.path": "x", "steps": 3}`."""
    result = _deep_copy(raw)
    for key, value in values.items():
        parts = key.split(".")
        if not all(parts):
            raise ConfigError(f"{key!r} is not of the form section.key")
        _assign(result, parts, _deep_copy(value), f"setting {key!r}")
    return result


def _assign(node: Any, parts: Sequence[str], value: Any, what: str) -> None:
    for depth, part in enumerate(parts):
        key: str | int = part
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                raise ConfigError(f"{what}: {part!r} is no index of a list of {len(node)}")
            key = int(part)
        elif not isinstance(node, dict):
            raise ConfigError(f"{what}: {parts[depth - 1]!r} holds a value, not a section")
        if depth == len(parts) - 1:
            node[key] = value
            return
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]


def dump_config(config: StrictModel) -> str:
    """YAML text of the resolved config, defaults included; `load_config` of it gives an equal config."""
    return dump_yaml(config.model_dump(mode="json"))


def dump_yaml(value: Any) -> str:
    """YAML text of plain values that `read_yaml` reads back as they were."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


def save_config(config: StrictModel, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")  # a disk may fill up, and the file before is still good
    partial.write_text(dump_config(config))
    partial.replace(path)


def _deep_copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _deep_copy(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_deep_copy(value) for value in node]
    return node


def _explain(model: type[BaseModel], error: Any) -> str:
    parts, owner = written_key(model, error["loc"])
    dotted = ".".join(parts) or "(top level)"
    if error["type"] == "missing":
        return f"{dotted}: required, and there is no default; set it in the file or as {dotted}=VALUE"
    if error["type"] != "extra_forbidden":
        if isinstance(error["input"], Mapping) and error["type"] in _OF_A_SECTION:
            return f"{dotted}: {error['msg']}"  # which says what was got; the section itself would drown it
        got = repr(error["input"])
        return f"{dotted}: {error['msg']} (got {got if len(got) <= SHOWN_CHARS else got[:SHOWN_CHARS] + ' ...'})"
    known = sorted(owner.model_fields) if owner else []
    hint = _elsewhere(model, parts[-1]) or did_you_mean(parts[-1], known) or "known keys: " + ", ".join(known)
    return f"{dotted}: unknown key; {hint}"


def _elsewhere(model: type[BaseModel], name: str) -> str:
    """The full names of the keys that are called so in other sections, where they are few enough to be a help."""
    found = [key.name for key in keys_of(model) if key.name.rpartition(".")[2] == name]
    return f"did you mean {' or '.join(dict.fromkeys(found))}?" if 0 < len(found) <= SHOWN_NAMES else ""
