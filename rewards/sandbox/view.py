"""Which files of the machine a sandbox shows: the interpreter, its standard library and the shared libraries."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SYSTEM_LIBRARIES = ("/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/etc/ld.so.cache")
SYSTEM_TOOLS = ("/bin", "/usr/bin")
"""For `Sandbox(readable=SYSTEM_TOOLS)`: a shell and the system's programs."""


@dataclass(frozen=True, slots=True)
class View:
    """Real paths to show read-only, and links to make; no path lies below another."""

    paths: tuple[str, ...]
    links: dict[str, str]


def interpreter() -> str:
    """The interpreter below a virtual environment, by its real path."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


@functools.cache
def package_folders() -> tuple[str, ...]:
    """Where this interpreter's packages are installed."""
    found = (sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    return tuple(dict.fromkeys(os.path.realpath(path) for path in found))


def python_paths() -> tuple[str, ...]:
    """The interpreter with its standard library and the shared libraries of the system."""
    libraries = (os.path.join(prefix, "lib") for prefix in {sys.base_prefix, sys.base_exec_prefix})
    return (interpreter(), *libraries, sysconfig.get_paths()["stdlib"], *SYSTEM_LIBRARIES)


def make_view(paths: Iterable[str]) -> View:
    """The view of `paths`; those that do not exist here are left out, links are shown as links."""
    real: set[str] = set()
    links: dict[str, str] = {}
    for path in map(os.path.abspath, paths):
        target = os.path.realpath(path)
        if not os.path.exists(target):
            continue
        real.add(target)
        if target != path:
            links[path] = target
    outermost = [path for path in sorted(real) if not _is_below_any(path, real - {path})]
    return View(tuple(outermost), _outermost_links(links, outermost))


def _outermost_links(links: dict[str, str], shown: list[str]) -> dict[str, str]:
    """Links that are not there yet because a shown folder holds them, or a link to its parent stands for them."""
    return {
        link: target
        for link, target in links.items()
        if not _is_below_any(link, shown) and not _is_below_any(link, set(links) - {link})
    }


def _is_below_any(path: str, others: Iterable[str]) -> bool:
    return any(Path(path).is_relative_to(other) for other in others)
