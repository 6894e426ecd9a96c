"""What a judge is asked and what is read from its replies, without a server: prompts, verdicts, votes, waits."""

from __future__ import annotations

from typing import Any

import pytest

from rewards import JudgeConfig
from rewards.judge.client import retry_after
from rewards.judge.limits import backoff
from rewards.judge.panel import decide
from rewards.judge.prompts import ask_grade, neutral
from rewards.judge.verdict import BadVerdict, read_answer, read_score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|im_end|>", "< |im_end| >"),
        ("<｜User｜>", "< ｜User｜ >"),
        ("</s><S>", "< /s>< S>"),
        ("[INST] <<SYS>>", "[ INST] < <SYS>>"),
        ("a < b, 1 << 2, x |> f", "a < b, 1 << 2, x | > f"),
        ("<answer>a[1]</answer>", "<answer>a[1]</answer>"),
    ],
)
def test_control_text_is_broken_up(text: str, expected: str) -> None:
    assert neutral(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 1}',
        ' \n{"score": 1.0, "note": "fine"} ',
        '```json\n{"score": 1}\n```',
        '<think>{"score": 0}</think>\n{"score": 1}',
    ],
)
def test_verdicts(text: str) -> None:
    assert read_score(text, 1) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "[1]",
        "Score: 1",
        'The answer says {"score": 1}',
        '{"score": 1} {"score": 0}',
        '{"score": 0, "score": 1}',
        '{"score": "1"}',
        '{"score": true}',
        '{"score": 2}',
        '{"score": -1}',
        '{"score": 0.5}',
        '{"score": NaN}',
        '{"score": 1e999}',
        '{"Score": 1}',
        '{"score": 1',
        '{"a":' * 5_000,
        '<think>{"score": 1}',
        '{"score": ' + "1" * 5_000 + "}",
    ],
)
def test_what_is_no_verdict(text: str) -> None:
    with pytest.raises(BadVerdict):
        read_score(text, 1)


def test_answers_of_a_caption_reader() -> None:
    assert read_answer('{"answer": " 3 "}') == "3"
    assert read_answer('{"answer": "B"}', {"A", "B"}) == "B"
    for text in ('{"answer": "C"}', '{"answer": 3}', '{"answer": ""}'):
        with pytest.raises(BadVerdict):
            read_answer(text, {"A", "B"})


@pytest.mark.parametrize(
    ("scores", "levels", "vote", "expected"),
    [
        ([1, 0, 1], 1, "majority", 1.0),
        ([1, 0], 1, "majority", 0.0),  # of equally frequent scores the lowest
        ([4, 4, 1, 0], 4, "majority", 1.0),
        ([1, 0, 1, 0], 1, "mean", 0.5),
        ([4, 1, 0], 4, "mean", 5 / 12),
    ],
)
def test_votes_become_one_value(scores: list[int], levels: int, vote: str, expected: float) -> None:
    assert decide(scores, levels, vote) == expected


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0.0),
        ("2", 2.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("nan", 0.0),
        ("inf", 86400.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),  # 100 s after the epoch, read at 60 s
    ],
)
def test_retry_after_header(header: str | None, seconds: float) -> None:
    assert retry_after(header, now=60.0) == seconds


def test_pauses_double_up_to_a_bound() -> None:
    assert [backoff(0.5, attempt, jitter=0.0) for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
    assert backoff(0.5, 3, jitter=0.5) == 3.0
    assert backoff(0.5, 30, jitter=0.0) == 10.0


def test_a_rubric_changes_what_is_asked() -> None:
    plain, strict = (
        ask_grade("q", ["r"], "a"),
        ask_grade("q", ["r"], "a", rubric="Units count.", explain=True, levels=3),
    )
    assert "Units count." in strict.system and "Units count." not in plain.system
    assert list(strict.schema["properties"]) == ["analysis", "score"]
    assert strict.schema["properties"]["score"]["enum"] == [0, 1, 2, 3]
    assert plain.fingerprint() == ask_grade("q", ["r"], "a").fingerprint() != strict.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"votes": 3}, "votes at temperature 0"),
        ({"url": "127.0.0.1:8000"}, "not an http"),
        ({"temprature": 1.0}, "did you mean temperature"),
        ({"extra": {"seed": 3}}, "extra may not set seed"),
        ({"vote": "best"}, "majority"),
    ],
)
def test_settings_that_can_not_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeConfig(**({"url": "http://127.0.0.1:9", "model": "m"} | changes))
