"""Plug-ins: references by module, by file and by entry point, and what happens when they lead nowhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rewards
from rewards import RewardPool, UnknownVerifier, libraries, plugins, registry
from rewards.plugins import PluginError

ROOT = Path(__file__).resolve().parents[3]

ONE = """
from rewards.base import RewardResult, graded
from rewards.extract import on_final_answer

def grade(prediction, answer, sample):
    return graded(float(prediction == answer[::-1]), "reversed")

verify = on_final_answer(grade)
"""
CLASS = """
from rewards.base import graded

class Backwards:
    def __call__(self, completion, answer, *, prompt=None, sample=None):
        return graded(float(completion == answer[::-1]))
"""
TWO = """
from rewards.base import graded

def first(completion, answer, *, prompt=None, sample=None):
    return graded(1.0)

def second(completion, answer, *, prompt=None, sample=None):
    return graded(0.0)

def helper(text):
    return text

def _hidden(completion, answer, *, prompt=None, sample=None):
    return graded(0.5)
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """`install(distribution, entry points)`: the metadata that pip leaves behind, on a path of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.installed.cache_clear()

    def install(distribution: str, points: str) -> None:
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{points}\n")

    yield install
    plugins.installed.cache_clear()


def score(text: str, gold: str, reference: str) -> rewards.RewardResult:
    return rewards.score(text, gold, "mine", plugins={"mine": reference})


def test_a_file_with_one_verifier_needs_no_attribute(write: Write) -> None:
    path = str(write(ONE))
    assert score("<answer>cba</answer>", "abc", path).value == 1.0
    assert score("<answer>abc</answer>", "abc", path).value == 0.0
    assert score("<answer>cba</answer>", "abc", f"{path}:verify").value == 1.0


def test_a_class_is_called(write: Write) -> None:
    assert score("cba", "abc", str(write(CLASS))).value == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "from rewards.base import *\nfrom typing import *\n" + ONE,
        "from rewards.verifiers.number import verify as number\n" + ONE,
        "from typing import Literal\nKind = Literal['a', 'b']\n" + ONE,
        "class Settings:\n    pass\n" + ONE,
        "import rewards.base\ntry:\n    import fast\nexcept ImportError:\n    fast = None\n" + ONE,
        ONE.replace("verify = on_final_answer(grade)", "if True:\n    verify = on_final_answer(grade)"),
    ],
    ids=["star imports", "an imported verifier", "an alias", "a class that can't be called", "a fallback", "under if"],
)
def test_only_what_the_file_defines_counts(write: Write, text: str) -> None:
    path = str(write(text))
    assert plugins.candidates(plugins.module_of(path)) == ["verify"]
    assert score("<answer>cba</answer>", "abc", path).value == 1.0


def test_a_path_from_the_working_directory(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(ONE)
    monkeypatch.chdir(path.parent)
    assert score("<answer>cba</answer>", "abc", "mine.py").value == 1.0
    assert plugins.absolute("mine.py:verify") == f"{path}:verify"
    assert plugins.absolute("./mine.py") == str(path)
    assert plugins.absolute("my_package.grading:verify") == "my_package.grading:verify"


def test_several_verifiers_in_a_file_must_be_told_apart(write: Write) -> None:
    path = str(write(TWO))
    with pytest.raises(PluginError, match=r"holds first, second; say which one: .*mine\.py:first"):
        score("a", "a", path)
    assert score("a", "a", f"{path}:second").value == 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "holds no verifier"),
        ("", "holds no verifier"),
        ("from rewards.base import graded, no_answer\n", "holds no verifier"),
        ("from rewards.base import *\n", "holds no verifier"),
        ("from rewards.base import Status\n", "holds no verifier"),
        ("from rewards.verifiers.number import verify\n", "holds no verifier"),
        ("def verify(completion, answer):\n    pass\n", "holds no verifier"),
        ("1 / 0\n", "failed at import: ZeroDivisionError"),
        ("def verify(:\n", "failed at import: SyntaxError"),
    ],
)
def test_a_file_without_a_verifier(write: Write, text: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        score("a", "a", str(write(text)))


def test_references_that_lead_nowhere(write: Write) -> None:
    path = str(write(ONE))
    with pytest.raises(PluginError, match="has no 'grad'; it has verify"):
        score("a", "a", f"{path}:grad")
    with pytest.raises(PluginError, match=r"other\.py does not exist"):
        RewardPool(plugins={"mine": "other.py"})
    with pytest.raises(PluginError, match="neither module:attribute nor the path"):
        score("a", "a", "my_package.grading")
    with pytest.raises(PluginError, match="is a str; name a function"):
        score("a", "a", "rewards.plugins:GROUP")


def test_a_data_set_can_not_choose_code() -> None:
    for name in ("os:system", "/tmp/evil.py", "evil.py:verify"):
        with pytest.raises(UnknownVerifier, match="a data set names an answer type only"):
            rewards.score("a", "a", name)


def test_a_library_that_is_missing_is_named_with_its_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)  # as if it were not installed
    monkeypatch.setitem(libraries.EXTRAS, "no_such_library", "chem")
    late = "from rewards.base import graded\ndef verify(completion, answer, *, prompt=None, sample=None):\n"
    late += "    import no_such_library\n    return graded(1.0)\n"
    with pytest.raises(ImportError, match=r'needs no_such_library, .*; pip install "innovator-rewards\[chem\]"'):
        score("a", "a", str(write(late, "late.py")))
    early = "import no_such_library\n" + ONE
    with pytest.raises(ImportError, match=r'needs no_such_library, .*; pip install "innovator-rewards\[chem\]"'):
        score("a", "a", str(write(early, "early.py")))


def test_libraries_are_found_in_the_source_and_through_our_modules() -> None:
    assert libraries._needed("rewards.verifiers.smiles") == {"rdkit"}
    assert {"math_verify", "sympy"} <= libraries._needed("rewards.verifiers.math_expressions")
    assert libraries._needed("rewards.verifiers.string") == set()
    exc = ModuleNotFoundError("No module named 'lxml'", name="lxml.html")
    several = libraries.missing_library(exc, "the verifier 'html-code'", ["lxml", "rapidfuzz"])
    assert str(several) == (
        "the verifier 'html-code' needs lxml and rapidfuzz, which are not installed; "
        'pip install "innovator-rewards[markup,text]"'
    )
    assert libraries.remedy(["rdkit", "math_verify"]) == 'pip install "innovator-rewards[chem,math]"'


def test_an_entry_point_is_an_answer_type(write: Write, install: Callable[[str, str], None]) -> None:
    write(ONE, "acme_grading.py")
    install("acme", "backwards = acme_grading:verify")
    assert registry.resolve("backwards") == "acme_grading:verify"
    assert rewards.score("<answer>cba</answer>", "abc", "backwards").value == 1.0
    with pytest.raises(UnknownVerifier, match="'backward' is not known; did you mean backwards"):
        registry.resolve("backward")
    with RewardPool(workers=1, preload=["backwards"]) as pool:
        assert pool.score("<answer>cba</answer>", "abc", "backwards").value == 1.0


def test_two_packages_that_claim_a_name_are_an_error_until_the_config_decides(
    install: Callable[[str, str], None],
) -> None:
    install("acme", "mine = acme:verify")
    install("zeta", "mine = zeta:verify")
    message = r"'mine' is claimed by acme \(acme:verify\) and zeta \(zeta:verify\)"
    with pytest.raises(PluginError, match=message):
        registry.resolve("mine")
    with pytest.raises(PluginError, match=message):
        registry.names()
    assert registry.resolve("mine", {"mine": "zeta:verify"}) == "zeta:verify"
    assert registry.names({"mine": "zeta:verify"})["mine"] == "zeta:verify"


def test_an_installed_package_can_not_replace_a_built_in_verifier(install: Callable[[str, str], None]) -> None:
    install("acme", "number = acme:verify")
    with pytest.raises(PluginError, match="package acme claims the answer type 'number', which is built in"):
        registry.names()
    assert registry.resolve("number") == registry.VERIFIERS["number"]
    assert registry.resolve("number", {"number": "acme:verify"}) == "acme:verify"


def test_an_entry_point_without_an_attribute_is_refused(install: Callable[[str, str], None]) -> None:
    install("acme", "mine = acme_grading")
    with pytest.raises(PluginError, match="'mine' of acme is 'acme_grading'; it must be of the form"):
        registry.names()


def test_one_package_on_the_path_twice_is_no_conflict(
    install: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("acme", "mine = acme:verify")
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "acme-1.0.dist-info").rename(again / "acme-1.0.dist-info")
    install("acme", "mine = acme:verify")
    monkeypatch.syspath_prepend(str(again))
    assert registry.names()["mine"] == "acme:verify"


def test_a_pool_takes_files(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(ONE)
    monkeypatch.chdir(path.parent)
    with RewardPool(workers=1, preload=[], plugins={"backwards": "mine.py"}) as pool:
        monkeypatch.chdir("/")
        path.unlink()  # it has been loaded
        assert pool.score("<answer>cba</answer>", "abc", "backwards").value == 1.0


def test_no_module_of_the_package_imports_the_trainer_or_its_libraries() -> None:
    code = """
import importlib, json, pkgutil, sys
import rewards
failed = []
for found in pkgutil.walk_packages(rewards.__path__, "rewards."):
    if not found.name.endswith("__main__") and ".inside." not in found.name:  # those are scripts of a sandbox
        importlib.import_module(found.name)
print(json.dumps([name for name in ("rl", "ray", "torch", "transformers", "vllm") if name in sys.modules]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == []
