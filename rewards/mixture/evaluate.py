"""A recipe applied to one completion, without waiting for anything: it says what must be scored, and takes results.

Evaluation is a generator (`Step`): it yields the calls that it needs next, is sent their results, and returns the
outcome. `together` runs many side by side, so that one round of all completions is one batch for the pool and one for
each judge, and the same code serves blocking and asynchronous callers.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from rewards.base import RewardResult, Status, failed
from rewards.judge import JUDGED
from rewards.length import measure, shaped
from rewards.mixture.settings import AUTO, Chain, Gate, JudgePart, LengthPart, VerifierPart, Weighted
from rewards.request import Request

POOL = ""
"""Lane of the verifiers; every other lane is a judge's name."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, and which lane scores it."""

    lane: str
    request: Request


@dataclass(frozen=True, slots=True)
class Outcome:
    """Value of a node; None for a failure, with its status and reason."""

    value: float | None
    status: Status = "ok"
    detail: str = ""


@dataclass(slots=True)
class Sheet:
    """What is known of one completion: the request, and the values of its parts so far."""

    request: Request
    judged: Mapping[str, str]
    """The lane of each judged answer type that something can grade."""
    parts: dict[str, float] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    """Parts that were asked for and have no value."""
    no_answer: bool = False

    def outcome(self, part: str | None, raw: float) -> float | None:
        """How right the completion is by a part, or by the whole; 0 where the recipe did not come to the part."""
        if part is None:
            return raw
        return None if part in self.failed else self.parts.get(part, 0.0)


Step = Generator[list[Call], list[RewardResult], Outcome]


def without_recipe(reason: str) -> Step:
    """The step of a completion that nothing says how to grade."""
    return Outcome(None, "error", reason)
    yield  # what makes this a generator


def evaluate(node: Any, sheet: Sheet) -> Step:
    """The outcome of a node for the completion on the sheet; the values of its parts are written there."""
    if isinstance(node, Weighted):
        return _weighted(node, sheet)
    if isinstance(node, Gate):
        return _gate(node, sheet)
    if isinstance(node, Chain):
        return _chain(node, sheet)
    return _part(node, sheet)


def together(steps: Sequence[Step]) -> Generator[list[Call], list[RewardResult], list[Outcome]]:
    """Run steps side by side: each round yields the calls of all of them at once."""
    outcomes: dict[int, Outcome] = {}
    waiting: dict[int, list[Call]] = {}

    def advance(index: int, results: list[RewardResult] | None) -> None:
        try:
            waiting[index] = next(steps[index]) if results is None else steps[index].send(results)
        except StopIteration as done:
            outcomes[index] = done.value

    for index in range(len(steps)):
        advance(index, None)
    while waiting:
        round_, waiting = waiting, {}
        results = yield [call for calls in round_.values() for call in calls]
        start = 0
        for index, calls in round_.items():
            advance(index, results[start : start + len(calls)])
            start += len(calls)
    return [outcomes[index] for index in range(len(steps))]


def _weighted(node: Weighted, sheet: Sheet) -> Step:
    outcomes = yield from together([evaluate(child, sheet) for child in node.weighted])
    total = weights = 0.0
    for child, outcome in zip(node.weighted, outcomes, strict=True):
        if outcome.value is None:
            if not child.optional:
                return outcome
            continue
        total += child.weight * outcome.value
        weights += abs(child.weight)
    if not weights:
        return next(outcome for outcome in outcomes if outcome.value is None)
    return Outcome(total / weights, detail="; ".join(outcome.detail for outcome in outcomes if outcome.detail))


def _gate(node: Gate, sheet: Sheet) -> Step:
    gate = yield from evaluate(node.gate, sheet)
    if gate.value is None and not node.gate.optional:
        return gate
    if gate.value is not None and gate.value < node.at_least:
        return Outcome(node.otherwise, detail=f"gate at {gate.value:g}, below {node.at_least:g}; {gate.detail}")
    return (yield from evaluate(node.then, sheet))


def _chain(node: Chain, sheet: Sheet) -> Step:
    passed = node.until == "passed"
    seen: list[Outcome] = []
    failure: Outcome | None = None
    skipped: Outcome | None = None
    for child in node.chain:
        outcome = yield from evaluate(child, sheet)
        if outcome.value is None:
            if child.optional:
                skipped = outcome
            elif passed:
                failure = failure or outcome
            else:
                return outcome
            continue
        seen.append(outcome)
        if (outcome.value >= node.at_least) == passed:
            return max(seen, key=_value) if passed else min(seen, key=_value)
    if failure is not None:
        return failure
    if not seen:
        assert skipped is not None
        return skipped
    return max(seen, key=_value) if passed else min(seen, key=_value)


def _part(part: Any, sheet: Sheet) -> Step:
    if isinstance(part, LengthPart):
        result = _length(part, sheet.request)
    else:
        call = call_of(part, sheet.request, sheet.judged)
        (result,) = [call] if isinstance(call, RewardResult) else (yield [call])
    sheet.no_answer = sheet.no_answer or result.status == "no_answer"
    value = result.value
    if value is not None and isinstance(part, VerifierPart) and part.read is not None:
        if part.read not in result.components:
            known = ", ".join(sorted(result.components)) or "none"
            sheet.failed.add(part.name)
            return Outcome(None, "error", f"{part.name}: no component {part.read!r}; the verifier gave {known}")
        value = result.components[part.read]
    if value is None:
        sheet.failed.add(part.name)
        return Outcome(None, result.status, f"{part.name}: {result.detail}")
    if part.range is not None:
        low, high = part.range
        value = min(max((value - low) / (high - low), 0.0), 1.0)
    sheet.parts[part.name] = value
    return Outcome(value, "ok", f"{part.name}: {result.detail}" if result.detail else "")


def call_of(part: VerifierPart | JudgePart, request: Request, judged: Mapping[str, str]) -> Call | RewardResult:
    """What a part asks of which lane; a failure where there is no judge to ask.

    Args:
        judged: the lane of each judged answer type that something can grade.
    """
    if isinstance(part, JudgePart):
        answer: str | Sequence[str] = request.answer if part.use_reference else ""
        sample = dict(request.sample or {})
        if part.rubric:
            sample["rubric"] = "\n".join(text for text in (part.rubric, str(sample.get("rubric") or "")) if text)
        return Call(part.judge, replace(request, answer=answer, answer_type=part.kind, sample=sample))
    answer_type = request.answer_type if part.verifier == AUTO else part.verifier
    merged: Mapping[str, Any] | None = {**(request.sample or {}), **part.settings} if part.settings else request.sample
    request = replace(request, answer_type=answer_type, sample=merged)
    if answer_type not in JUDGED:
        return Call(POOL, request)
    if answer_type not in judged:
        return failed("error", f"answer type {answer_type!r} needs a judge, and the mixture has none called default")
    return Call(judged[answer_type], request)


def _length(part: LengthPart, request: Request) -> RewardResult:
    tokens = (request.sample or {}).get("completion_tokens")
    length = measure(request.completion, part.length, tokens if isinstance(tokens, int) else None)
    if length is None:
        return failed("error", "the length in tokens is not known; give completion_tokens in the sample, or take words")
    return RewardResult(shaped(length, part.length), "ok", {}, f"{length} {part.length.unit}")


def _value(outcome: Outcome) -> float:
    return cast(float, outcome.value)
