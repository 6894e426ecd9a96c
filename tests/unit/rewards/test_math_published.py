"""Published cases of Math-Verify, AReaL and TRL: where `math-expressions` agrees, and each difference explained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewards import score
from rewards.extract import final_answer
from rewards.verifiers.math_expressions import boxes_as_list

CASES = Path(__file__).parents[2] / "golden" / "math_cases"
SOURCES = ("areal", "math_verify", "trl")


def load(source: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CASES / f"{source}.json").read_text())
    return loaded


def agrees(case: dict[str, Any], wrapping: str) -> bool:
    prediction = case["prediction"]
    if wrapping == "free-form" and final_answer(prediction) is None and boxes_as_list(prediction) is None:
        prediction = f"<answer>{prediction}</answer>"
    result = score(prediction, case["gold"], "math-expressions", sample={"tolerance": case.get("tolerance")})
    got = None if result.value is None else result.value == 1.0
    return bool(got is case["expected"])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.timeout(300)
def test_every_difference_is_listed_and_every_listed_one_is_there(source: str) -> None:
    content = load(source)
    differing = {case["name"] for case in content["cases"] if not agrees(case, content["wrapping"])}
    assert differing == {case["name"] for case in content["cases"] if "differs" in case}


@pytest.mark.parametrize(("source", "least"), [("areal", 0.98), ("math_verify", 0.99), ("trl", 0.83)])
def test_agreement_on_what_both_can_do(source: str, least: float) -> None:
    cases = [case for case in load(source)["cases"] if case.get("scope") != "scope"]
    assert sum("differs" not in case for case in cases) / len(cases) >= least


@pytest.mark.parametrize("source", SOURCES)
def test_cases_name_their_source_and_reasons(source: str) -> None:
    content = load(source)
    assert all(content[key] for key in ("source", "commit", "licence"))
    names = [case["name"] for case in content["cases"]]
    assert len(set(names)) == len(names)
    assert all(case["scope"] in ("scope", "ours") for case in content["cases"] if "differs" in case)


def test_the_table_counts_what_the_files_hold() -> None:
    table = (CASES / "README.md").read_text()
    for source in SOURCES:
        cases = load(source)["cases"]
        scopes = [case["scope"] for case in cases if "differs" in case]
        row = next(line for line in table.splitlines() if line.startswith(f"| `{source}.json`"))
        counts = [int(cell) for cell in row.split("|")[3:7]]
        assert counts == [len(cases), len(cases) - len(scopes), scopes.count("scope"), scopes.count("ours")]
