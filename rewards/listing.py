"""Every verifier that can be named here: where it comes from and whether its libraries are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rewards import libraries, plugins, registry


@dataclass(frozen=True, slots=True)
class Listed:
    """One answer type."""

    name: str
    origin: str
    """`built in`, `given`, or the distribution that installed it."""
    reference: str
    missing: tuple[str, ...]
    """Libraries it imports that are not installed."""


def listing(given: Mapping[str, str] | None = None) -> list[Listed]:
    """Built-in verifiers, installed plug-ins and those given, by name. Imports none of them.

    Raises:
        PluginError: as `rewards.registry.names`.
    """
    given = given or {}
    return [
        Listed(name, _origin(name, reference, given), reference, tuple(libraries.missing(reference)))
        for name, reference in sorted(registry.names(given).items())
    ]


def _origin(name: str, reference: str, given: Mapping[str, str]) -> str:
    if name in given:
        return "given"
    if name in registry.VERIFIERS:
        return "built in"
    return plugins.installed()[name][reference]
