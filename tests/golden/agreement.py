"""Agreement of `math-expressions` with the published cases in `math_cases/`: the tables of docs/rewards_agreement.md.

python -m tests.golden.agreement
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rewards import score
from rewards.extract import final_answer
from rewards.verifiers.math_expressions import boxes_as_list

CASES = Path(__file__).parent / "math_cases"
SOURCES = {"math_verify": "Math-Verify", "areal": "AReaL", "trl": "TRL"}
"""File -> project, in the order of the table."""
SCOPES = {"scope": "an option that ours lacks", "ours": "ours is meant to differ"}


def load(source: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CASES / f"{source}.json").read_text())
    return loaded


def agrees(case: dict[str, Any], wrapping: str) -> bool:
    """Whether ours gives what the case's own test expects."""
    prediction = case["prediction"]
    if wrapping == "free-form" and final_answer(prediction) is None and boxes_as_list(prediction) is None:
        prediction = f"<answer>{prediction}</answer>"
    result = score(prediction, case["gold"], "math-expressions", sample={"tolerance": case.get("tolerance")})
    got = None if result.value is None else result.value == 1.0
    return bool(got is case["expected"])


def differing(source: str) -> list[dict[str, Any]]:
    content = load(source)
    return [case for case in content["cases"] if not agrees(case, content["wrapping"])]


def tables() -> str:
    """The two tables, from cases graded now."""
    counts = ["| source | cases | agree | agreement | within what both can do | differences explained |"]
    counts.append("|---|---|---|---|---|---|")
    listed = ["| source | case | gold | prediction | theirs | why ours differs |", "|---|---|---|---|---|---|"]
    for source, project in SOURCES.items():
        total, found = len(load(source)["cases"]), differing(source)
        beyond = sum(case.get("scope") == "scope" for case in found)
        agree, explained = total - len(found), sum("differs" in case for case in found)
        shares = f"{agree / total:.1%} | {agree} of {total - beyond}, {agree / (total - beyond):.1%}"
        counts.append(f"| {project} | {total} | {agree} | {shares} | {explained} of {len(found)} |")
        for case in found:
            texts = [f"`{case[side]}`".replace("|", "\\|") for side in ("gold", "prediction")]
            theirs = {True: "right", False: "wrong", None: "skipped"}[case["expected"]]
            why = f"{case.get('differs', 'not explained')} ({SCOPES.get(case.get('scope', ''), '?')})"
            listed.append(f"| {project} | {case['name']} | {' | '.join(texts)} | {theirs} | {why} |")
    return "\n".join(counts) + "\n\n" + "\n".join(listed)


if __name__ == "__main__":
    print(tables())
