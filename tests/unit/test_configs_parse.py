"""Every YAML file under configs/ is a valid config of the command that it names; configs/rewards/ has its own test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rl.cli.configs import check_file

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "configs").rglob("*.y*ml")
    if path.parent != ROOT / "configs" / "rewards"
)
LAUNCHERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "launch").iterdir() if path.is_file())


@pytest.mark.parametrize("name", FILES)
def test_config_parses(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_file(Path(name))


@pytest.mark.parametrize("name", FILES)
def test_config_begins_with_its_command(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    assert re.fullmatch(r"command: [a-z-]+", lines[0])


@pytest.mark.parametrize("name", [*LAUNCHERS, "Makefile"])
def test_configs_that_are_named_exist(name):
    named = set(re.findall(r"configs/[\w/.-]+\.ya?ml", (ROOT / name).read_text()))
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
