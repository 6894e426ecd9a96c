"""The layers of the package, and that the command line starts without the heavy libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "vllm", "transformers", "rdkit", "datasets", "matplotlib", "pydantic")


def test_imports_go_one_way():
    # In a process of its own: import-linter sets logging up anew and so silences every logger that exists already.
    code = "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--no-logo'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_command_line_imports_nothing_heavy():
    code = f"import sys, rl.cli.app; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
