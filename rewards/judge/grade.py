"""Answer type `judge`: the final answer against the references, by the votes of a judge."""

from __future__ import annotations

from rewards.base import RewardResult, failed, graded, no_answer, shorten
from rewards.extract import final_answer
from rewards.judge.panel import Panel, decide
from rewards.judge.prompts import ask_grade
from rewards.judge.settings import JudgeConfig
from rewards.request import Request

MAX_REFERENCE_CHARS = 50_000


async def grade_answer(panel: Panel, config: JudgeConfig, request: Request, deadline: float) -> RewardResult:
    """Value in [0, 1]; `votes` and `agreement`, the share of votes for the most frequent score, are components.

    The judge sees the question, all accepted answers and the final answer, never the reasoning. A row's `rubric`, text
    under that name in `sample`, adds criteria, and allows rows without a reference.

    Raises:
        JudgeError: too few verdicts.
    """
    rubric = "\n".join(part for part in (config.rubric, str((request.sample or {}).get("rubric") or "")) if part)
    golds = [request.answer] if isinstance(request.answer, str) else list(request.answer)
    golds = [gold for gold in golds if isinstance(gold, str) and gold.strip()]
    if not golds and not rubric:
        return failed("invalid_gold", "there is neither an accepted answer nor a rubric, so nothing can be judged")
    if sum(map(len, golds)) > MAX_REFERENCE_CHARS:
        return failed("invalid_gold", f"the accepted answers have over {MAX_REFERENCE_CHARS} characters")
    answer = final_answer(request.completion)
    if answer is None:
        return no_answer()
    if len(answer) > config.max_answer_chars:
        return graded(0.0, f"an answer of {len(answer)} characters, over {config.max_answer_chars}")
    ask = ask_grade(request.prompt or "", golds, answer, levels=config.levels, explain=config.explain, rubric=rubric)
    scores = await panel.scores(ask, deadline)
    agreement = max(map(scores.count, scores)) / len(scores)
    detail = f"{shorten(answer)!r}: {','.join(map(str, scores))} of {config.levels} by {config.model}"
    value = decide(scores, config.levels, config.vote)
    return graded(value, detail, votes=float(len(scores)), agreement=agreement)
