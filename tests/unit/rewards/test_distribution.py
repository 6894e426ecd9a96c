"""`rewards` as a distribution of its own: what it declares is what its code needs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from rewards import libraries

ROOT = Path(__file__).resolve().parents[3]
OWN = tomllib.loads((ROOT / "rewards/pyproject.toml").read_text())["project"]
MAIN = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED = {"pyyaml": "yaml", "pillow": "PIL"}
"""Distributions whose import name is not their own."""
BROUGHT_ALONG = {
    "latex2sympy2_extended": "math-verify",
    "mpmath": "sympy",
    "starlette": "fastapi",
    "typing_extensions": "pydantic",
    "click": "typer",
}


def names(requirements: list[str]) -> set[str]:
    """Import names of requirements."""
    plain = [re.split(r"[<>=\[ ]", item)[0] for item in requirements]
    return {IMPORTED.get(name, name.replace("-", "_")) for name in plain if name != OWN["name"]}


def test_every_library_is_in_the_extra_that_its_error_names() -> None:
    extras = {extra: names(items) for extra, items in OWN["optional-dependencies"].items()}
    for library, extra in libraries.EXTRAS.items():
        brought = BROUGHT_ALONG.get(library)
        assert (names([brought]) if brought else {library}) <= extras[extra], library


def test_every_import_of_the_package_is_declared() -> None:
    declared = names(OWN["dependencies"]) | libraries.EXTRAS.keys() | BROUGHT_ALONG.keys()
    for path in sorted((ROOT / "rewards").rglob("*.py")):
        # Scripts of a folder `inside` run in a sandbox, where the folder is on the path.
        beside = {file.stem for file in path.parent.glob("*.py")} if path.parent.name == "inside" else set()
        assert libraries._needed(str(path)) - beside <= declared, path


def test_the_extra_all_holds_all() -> None:
    (item,) = OWN["optional-dependencies"]["all"]
    listed = item.partition("[")[2].rstrip("]").split(",")
    assert sorted(listed) == sorted(set(OWN["optional-dependencies"]) - {"all"})


def test_both_distributions_have_the_command() -> None:
    assert OWN["scripts"]["rewards"] == MAIN["scripts"]["rewards"] == "rewards.cli:main"
