"""Which parameters learn: named groups and glob patterns over parameter names.

`trainable: [projector]`, `[language]`, `[all]`, `["model.language_model.layers.1?.*"]`, `[all, "!*embed_tokens*"]`.
Names are those of the model in memory (`rl` logs none of its own in front), as `model.named_parameters()` of
transformers gives them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from rl.errors import ConfigError
from rl.models.policy import Policy

_TOWER = "*visual.*"
_PROJECTOR = ("*visual.merger.*", "*visual.deepstack_merger_list.*")
GROUPS: dict[str, tuple[str, ...]] = {
    "all": ("*",),
    "vision": (_TOWER,),
    "projector": _PROJECTOR,
    "language": ("*", f"!{_TOWER}"),
}
"""`vision` holds the projector too, as the projector lies inside the tower of the Qwen family. `language` is the rest:
the whole of a text model."""


def set_trainable(policy: Policy, patterns: Sequence[str]) -> int:
    """Train only what the patterns name; returns the number of trained parameters.

    A pattern is a group or a glob (`*`, `?`, `[...]`, over whole names, case counts); one that begins with `!` takes
    away what it matches, wherever it stands in the list. A tied parameter has several names: one of them is enough.

    Raises:
        ConfigError: a pattern that matches no parameter, or nothing is left to train.
    """
    aliases = parameter_names(policy.model)
    wanted = _matching([p for p in patterns if not p.startswith("!")], aliases)
    unwanted = _matching([p[1:] for p in patterns if p.startswith("!")], aliases)
    trained = wanted - unwanted
    if not trained:
        raise ConfigError(f"trainable {list(patterns)} leaves no parameter to train; set it to [all]")
    total = 0
    for parameter in aliases:
        parameter.requires_grad_(parameter in trained)
        total += parameter.numel() if parameter in trained else 0
    return total


def parameter_names(model: nn.Module) -> dict[nn.Parameter, list[str]]:
    """Every parameter once, with all its names."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return names


def _matching(patterns: Sequence[str], aliases: Mapping[nn.Parameter, Sequence[str]]) -> set[nn.Parameter]:
    known = [name for names in aliases.values() for name in names]
    found: set[nn.Parameter] = set()
    for pattern in patterns:
        hits = _names_of(pattern, known)
        if not hits:
            raise ConfigError(
                f"trainable {pattern!r} matches no parameter of this model, so it would train something else than "
                f"you meant; {nearest(pattern, [*GROUPS, *known])}; groups: {', '.join(GROUPS)}"
            )
        found |= {parameter for parameter, names in aliases.items() if any(name in hits for name in names)}
    return found


def _names_of(pattern: str, known: Sequence[str]) -> set[str]:
    parts = GROUPS.get(pattern, (pattern,))
    hits = {name for name in known if any(fnmatchcase(name, part) for part in parts if not part.startswith("!"))}
    return {name for name in hits if not any(fnmatchcase(name, part[1:]) for part in parts if part.startswith("!"))}


def nearest(name: str, known: Collection[str]) -> str:
    """`did you mean ...?`, or a few of the known names where none is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"names look like {', '.join(list(known)[-3:])}"
