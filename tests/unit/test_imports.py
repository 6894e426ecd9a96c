"""The layers of the package, and that the command line starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "vllm", "transformers", "rdkit", "datasets", "matplotlib", "pydantic")


def test_imports_go_one_way(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert code == 0, capsys.readouterr().out


def test_the_command_line_imports_nothing_heavy():
    code = f"import sys, rl.cli.app; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
