"""Plug-ins: verifiers that live outside this package, found by entry point, by `module:attribute` or by file.

A reference says where a verifier is: `my_package.grading:verify`, `grading/balanced.py:verify`, or just
`grading/balanced.py` where the file holds one verifier only. A data set names an answer type and never a reference:
which code runs is decided by who starts the run, not by rows.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from rewards.base import Verifier

GROUP = "rewards.plugins"
"""The entry point group: `[project.entry-points."rewards.plugins"]`, answer type = "module:attribute"."""

NOT_VERIFIERS = ("warm_up",)


class PluginError(ValueError):
    """A plug-in can't be told from another, or its reference leads to no verifier."""


def is_reference(text: str) -> bool:
    """True for texts that say where code is, and are thus no answer type."""
    return ":" in text or "/" in text or text.endswith(".py")


def absolute(reference: str, base: str | Path | None = None) -> str:
    """The reference with its file made absolute from `base` (default: the working directory); modules stay as they are.

    Raises:
        PluginError: neither form, or no such file.
    """
    file, attribute = _split(reference)
    if file is None:
        return reference
    path = (Path(base or Path.cwd()) / Path(file).expanduser()).resolve()
    if not path.is_file():
        raise PluginError(f"the plug-in file {path} does not exist; it is named by {reference!r}")
    return f"{path}:{attribute}" if attribute else str(path)


def file_of(reference: str) -> Path | None:
    """The file of a reference by path; None for a module."""
    file, _ = _split(reference)
    return None if file is None else Path(file)


def load(reference: str) -> Verifier:
    """Import what a reference names, once per process; a class is instantiated.

    Raises:
        PluginError: no such attribute, several to choose from, or the file fails when it is run.
        ImportError: the module, or a library that it imports, is missing.
    """
    file = file_of(reference)
    # An absolute path is not looked up again: a run goes on although its plug-in is being edited.
    return _load(reference if file is None or file.is_absolute() else absolute(reference))


@functools.cache
def _load(reference: str) -> Verifier:
    module = module_of(reference)
    _, attribute = _split(reference)
    found: Any = module
    try:
        for part in (attribute or _only_candidate(module)).split("."):
            found = getattr(found, part)
    except AttributeError:
        raise PluginError(
            f"{reference!r}: {module.__name__!r} has no {attribute!r}; it has {_listed(candidates(module))}"
        ) from None
    if not callable(found):
        raise PluginError(f"{reference!r} is a {type(found).__name__}; name a function, or a class that can be called")
    if not isinstance(found, type):
        return found
    try:
        made: Verifier = found()
    except ImportError:
        raise
    except Exception as exc:  # the plug-in's own code
        raise PluginError(f"{reference!r}: {found.__name__}() failed: {type(exc).__name__}: {exc}") from exc
    return made


def module_of(reference: str) -> ModuleType:
    """Import the module of a reference; see `load` for what is raised."""
    file, _ = _split(reference)
    if file is None:
        return importlib.import_module(reference.partition(":")[0])
    path = Path(file)
    if not path.is_absolute():
        path = Path(absolute(file))
    name = f"rewards_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, absolute(str(path)))
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[name]
        if isinstance(exc, ImportError) or not isinstance(exc, (Exception, SystemExit)):
            raise
        raise PluginError(f"the plug-in file {path} failed at import: {type(exc).__name__}: {exc}") from exc
    return module


def candidates(module: ModuleType) -> list[str]:
    """Public names that a module itself defines or assigns, and that can be called as a verifier."""
    try:
        own = set(_bound(ast.parse(inspect.getsource(module)).body))
    except (OSError, TypeError, SyntaxError):  # it has no source, or has been edited since it was imported
        own = set()
    return [
        name
        for name, value in vars(module).items()
        if name in own and not name.startswith(("_", "test_")) and name not in NOT_VERIFIERS and _is_verifier(value)
    ]


def entry_points(decided: Collection[str] = ()) -> dict[str, str]:
    """Answer type -> reference of every installed plug-in, sorted by name, but for the names `decided` elsewhere.

    Raises:
        PluginError: two packages claim one name, or an entry point names no attribute.
    """
    claims = {name: owners for name, owners in installed().items() if name not in decided}
    for name, owners in claims.items():
        if len(owners) > 1:
            told = " and ".join(f"{owner} ({reference})" for reference, owner in sorted(owners.items()))
            raise PluginError(
                f"the answer type {name!r} is claimed by {told}; uninstall one, or say which one you mean "
                f"in the config: plugins: {{{name}: module:attribute}}"
            )
    return {name: next(iter(owners)) for name, owners in sorted(claims.items())}


@functools.cache
def installed() -> Mapping[str, Mapping[str, str]]:
    """Answer type -> {reference: distribution} over all installed packages; read once per process."""
    from importlib.metadata import entry_points as read

    claims: dict[str, dict[str, str]] = {}
    for point in read(group=GROUP):
        owner = point.dist.name if point.dist is not None else "an unnamed package"
        if not point.attr:
            raise PluginError(
                f"entry point {point.name!r} of {owner} is {point.value!r}; it must be of the form module:attribute"
            )
        claims.setdefault(point.name, {})[f"{point.module}:{point.attr}"] = owner
    return claims


def _split(reference: str) -> tuple[str | None, str | None]:
    """(file, attribute) of a reference by path, (None, attribute) of one by module."""
    head, colon, tail = reference.rpartition(":")
    if reference.endswith(".py"):
        return reference, None
    if colon and head.endswith(".py") and tail:
        return head, tail
    if not colon or not head or not tail or "/" in reference:
        raise PluginError(
            f"plug-in {reference!r} is neither module:attribute nor the path of a .py file (with :attribute if the "
            "file holds several verifiers)"
        )
    return None, tail


def _only_candidate(module: ModuleType) -> str:
    names = candidates(module)
    if len(names) == 1:
        return names[0]
    if not names:
        raise PluginError(
            f"{module.__file__} holds no verifier: a public function, or a class without arguments, that can be called "
            "with (completion, answer, *, prompt=None, sample=None)"
        )
    raise PluginError(f"{module.__file__} holds {_listed(names)}; say which one: {module.__file__}:{names[0]}")


def _bound(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Names that statements bind, but not by an import."""
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            yield statement.name
            continue
        for node in ast.walk(statement):  # an assignment, or a definition under `if` or `try`
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield node.name
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _is_verifier(value: Any) -> bool:
    """Whether it is called as a verifier is; typing aliases such as `Literal["a"]` can be called with anything."""
    if not callable(value) or get_origin(value) is not None:
        return False
    try:
        if isinstance(value, type):
            if not any("__call__" in vars(base) for base in value.__mro__):
                return False  # what `value.__call__` would find is the call that makes an instance
            inspect.signature(value).bind()
            inspect.signature(value.__call__).bind(None, "", "", prompt=None, sample=None)
        else:
            inspect.signature(value).bind("", "", prompt=None, sample=None)
    except (TypeError, ValueError):  # the call does not fit, or a builtin without a signature
        return False
    return True


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "no verifier"
