"""Captions graded by a judge that answers questions from them, against a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rewards import JudgeConfig, JudgePool
from tests.unit.rewards.judge_server import Call, JudgeServer, Reply, Script, score, serve


def answer(text: str) -> str:
    return f"<think>so</think><answer>{text}</answer>"


def pool_at(server: JudgeServer, **changes: Any) -> JudgePool:
    return JudgePool(JudgeConfig(url=server.url, model="m", backoff_s=0.01, deadline_s=20.0, **changes))


PAIRS = [
    {"question": "How many curves?", "answer": "3"},
    {"question": "Unit of the axis?", "answer": "kelvin"},
    {"question": "Which is highest?", "answer": "red", "options": ["red", "blue"]},
    {"question": "Who drew it?", "answer": "Ada"},
]


def reader(known: dict[str, str], grades: Callable[[str], int] = lambda said: 0) -> Script:
    """A judge that answers the questions in `known`, and grades what it is asked to grade."""

    def judge(call: Call, number: int) -> Reply:
        assert "Ada" not in call.user or "BEGIN REFERENCE" in call.user  # the reader never sees the gold
        if "BEGIN CAPTION" not in call.user:
            return score(grades(call.user))
        for question, said in known.items():
            if question in call.user:
                return Reply(json.dumps({"answer": said}))
        return Reply('{"answer": "cannot tell"}')

    return judge


def test_captions_are_worth_the_answers_that_they_give() -> None:
    known = {"curves": "three", "Unit": "K", "highest": "blue"}
    with serve(reader(known, lambda text: int("kelvin" in text))) as server, pool_at(server) as pool:
        result = pool.score(answer("a chart"), json.dumps(PAIRS), "caption-qa")
    # three = 3 by rule, K = kelvin by the judge, blue is wrong, and nobody told who drew it
    assert result.value == 0.5
    assert (result.components["questions"], result.components["answered"]) == (4.0, 0.75)
    assert len(server.calls) == 5
    options = [call.body["response_format"] for call in server.calls if "OPTIONS" in call.user]
    assert options[0]["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["red", "blue", "cannot tell"]


def test_a_question_without_a_verdict_fails_the_caption() -> None:
    def script(call: Call, number: int) -> Reply:
        return Reply(status=400) if "Who drew" in call.user else reader({})(call, number)

    with serve(script) as server, pool_at(server) as pool:
        result = pool.score(answer("a chart"), json.dumps(PAIRS), "caption-qa")
        assert (result.status, result.value) == ("error", None)
        assert pool.score("no tags", json.dumps(PAIRS), "caption-qa").status == "no_answer"


@pytest.mark.parametrize(
    "gold",
    [
        "",
        "[]",
        "{}",
        "[1]",
        '[{"question": "q"}]',
        '[{"question": "q", "answer": ""}]',
        '[{"question": "q", "answer": "a", "options": ["b"]}]',
        json.dumps([PAIRS[0]] * 65),
        "[" * 100_000,
    ],
)
def test_golds_that_hold_no_questions(gold: str) -> None:
    with serve(reader({})) as server, pool_at(server) as pool:
        assert pool.score(answer("a chart"), gold, "caption-qa").status == "invalid_gold"
        assert server.calls == []
