"""`rewards new`: the plug-in template and its test, under a name of the user's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from rewards.cli.app import UsageError

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")

TEST = '''"""The verifier of {name} grades as it should: `pytest {test}`."""

from pathlib import Path

import pytest

import rewards
from rewards.conformance import check

PLUGIN = str(Path(__file__).with_name("{file}"))


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<answer>Oxygen, iron</answer>", 1.0),
        ("<answer>iron</answer>", 0.0),
        ("no answer at all", 0.0),
    ],
)
def test_grades(completion: str, value: float) -> None:
    result = rewards.score(completion, "iron, oxygen", "{name}", plugins={{"{name}": PLUGIN}})
    assert result.value == value, result.detail


def test_conforms() -> None:
    report = check(PLUGIN)
    assert report.passed, report.text()
'''


def write_plugin(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the plug-in and its test; returns their paths.

    Raises:
        UsageError: the name is no answer type or is taken, or a file is in the way.
    """
    from rewards import plugin_template, registry

    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of an answer type; use small letters, digits and dashes: unordered-list")
    if name in registry.VERIFIERS:
        raise UsageError(
            f"{name!r} is a built-in answer type; choose another name, so that it stays clear which grades"
        )
    stem = name.replace("-", "_")
    plugin, test = folder / f"{stem}.py", folder / f"test_{stem}.py"
    for path in (plugin, test):
        if path.exists():
            raise UsageError(f"{path} exists already; move it away, or choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    text = inspect.getsource(plugin_template)
    plugin.write_text(
        text.replace('"""NAME:', f'"""{name}:', 1).replace("rewards check FILE", f"rewards check {plugin}")
    )
    test.write_text(TEST.format(name=name, file=plugin.name, test=test.name))
    return plugin, test
