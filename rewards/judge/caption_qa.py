"""Answer type `caption-qa`: how many questions about an image can be answered from its caption alone.

The protocol of OmniScience (arXiv 2602.13758) and CaptionQA (arXiv 2511.21025): a caption is worth what a reader
learns from it. A language model answers each question from the caption, without the image and without the gold answer;
its answers are then compared with the gold ones. The value is the share of right answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rewards import numbers
from rewards.base import RewardResult, failed, graded, no_answer
from rewards.extract import final_answer
from rewards.judge.panel import Panel, decide
from rewards.judge.prompts import NO_ANSWER, ask_caption, ask_grade
from rewards.judge.settings import JudgeConfig
from rewards.request import Request
from rewards.text import bare, folded

MAX_QUESTIONS = 64
MAX_GOLD_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Question:
    """One question about the image; with `options` the answer is one of them, word for word."""

    question: str
    answer: str
    options: tuple[str, ...] = ()


async def grade_caption(panel: Panel, config: JudgeConfig, request: Request, deadline: float) -> RewardResult:
    """Share of the gold's questions that the caption, the final answer of the completion, answers rightly.

    Components: `questions`, and `answered`, the share to which the judge found an answer, right or wrong. A question
    without a verdict makes the whole a failure: it is not a wrong answer.

    Raises:
        JudgeError: a question got no verdict.
    """
    if not isinstance(request.answer, str) and len(request.answer) != 1:
        return failed("invalid_gold", f"caption-qa takes one gold text with all questions, got {len(request.answer)}")
    try:
        questions = read_questions(request.answer if isinstance(request.answer, str) else request.answer[0])
    except ValueError as exc:
        return failed("invalid_gold", str(exc))
    caption = final_answer(request.completion)
    if caption is None:
        return no_answer("no complete caption after the reasoning")
    if len(caption) > config.max_answer_chars:
        return graded(0.0, f"a caption of {len(caption)} characters, over {config.max_answer_chars}")
    outcomes = await asyncio.gather(
        *(_outcome(panel, config, caption, question, deadline) for question in questions), return_exceptions=True
    )
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    pairs = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    right = sum(value for _, value in pairs) / len(pairs)
    answered = sum(told for told, _ in pairs) / len(pairs)
    detail = f"{right:.3g} of {len(pairs)} questions by {config.model}"
    return graded(right, detail, questions=float(len(pairs)), answered=answered)


def read_questions(gold: str) -> list[Question]:
    """The questions in a gold text: a JSON list of `{"question", "answer"}`, with `options` where there are some.

    Raises:
        ValueError: not such a list, empty, too long, or an answer that is none of its options.
    """
    if len(gold) > MAX_GOLD_CHARS:
        raise ValueError(f"the gold has {len(gold)} characters, over {MAX_GOLD_CHARS}")
    try:
        rows = json.loads(gold)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"the gold is not JSON ({exc!s:.80}); caption-qa needs a list of question and answer") from exc
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_QUESTIONS:
        raise ValueError(f"the gold must be a list of 1 to {MAX_QUESTIONS} questions with answers")
    return [_question(row, number) for number, row in enumerate(rows)]


def _question(row: Any, number: int) -> Question:
    if not isinstance(row, Mapping):
        raise ValueError(f"question {number} is a {type(row).__name__}, not an object with question and answer")
    question, answer, options = row.get("question"), row.get("answer"), row.get("options") or []
    for name, value in (("question", question), ("answer", answer)):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"question {number} has no text under {name!r}")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"question {number}: options must be a list of texts")
    if options and answer not in options:
        raise ValueError(f"question {number}: its answer {answer!r:.60} is none of its options")
    return Question(str(question), str(answer), tuple(options))


async def _outcome(
    panel: Panel, config: JudgeConfig, caption: str, question: Question, deadline: float
) -> tuple[bool, float]:
    """Whether the caption gave an answer, and its grade."""
    said = await panel.verdict(ask_caption(caption, question.question, question.options), 0, deadline)
    answer = str(said)
    if folded(answer) == folded(NO_ANSWER):
        return False, 0.0
    if question.options:
        return True, float(answer == question.answer)
    if _plainly_same(answer, question.answer):
        return True, 1.0
    grade = ask_grade(question.question, [question.answer], answer, levels=config.levels, explain=config.explain)
    return True, decide(await panel.scores(grade, deadline), config.levels, config.vote)


def _plainly_same(answer: str, gold: str) -> bool:
    if folded(bare(answer)) == folded(bare(gold)):
        return True
    first, second = numbers.parse(answer), numbers.parse(gold)
    return first is not None and second is not None and numbers.equal(first, second)
