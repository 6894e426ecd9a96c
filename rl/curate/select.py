"""Selection: pure functions from scored attempts to kept and dropped candidates with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.algo.passk import pass_at_k
from rl.config.curate import SelectConfig


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sample with its attempts and its fate in the selection."""

    id: str
    source: str
    n: int
    """Attempts whose grader gave a value."""
    correct: float
    """Of those, how many were right."""
    mean_reward: float
    """NaN, as the scores below, with fewer than k valid attempts."""
    pass_at_1: float
    pass_at_n: float
    """Pass@k with the k of the rule."""
    kept: bool
    reason: str
    """`kept`, `too_few_valid` (fewer than k), `too_hard`, `too_easy` or `outside_band`."""


def judge(id: str, source: str, rewards: Sequence[float | None], right_from: float, rule: SelectConfig) -> Candidate:
    """Apply the rule to one candidate's rewards.

    Pass@k high and Pass@1 low: the discrepancy between what the policy can do and what it does is what RL can close.
    """
    values = [reward for reward in rewards if reward is not None]
    if len(values) < rule.pass_k:
        return Candidate(id, source, len(values), math.nan, math.nan, math.nan, math.nan, False, "too_few_valid")
    right = sum(value >= right_from for value in values)
    mean = math.fsum(values) / len(values)
    first = right / len(values)
    last = pass_at_k(len(values), right, rule.pass_k)
    band = rule.bands.get(source, rule.band)
    if last < rule.min_pass_at_k:
        reason = "too_hard"
    elif first > rule.max_pass_at_1:
        reason = "too_easy"
    elif not band.above < mean < band.below:
        reason = "outside_band"
    else:
        reason = "kept"
    return Candidate(id, source, len(values), float(right), mean, first, last, reason == "kept", reason)
