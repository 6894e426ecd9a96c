"""Which completions and groups are worth training on, and counts of why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rl.config.objective import FilterConfig, OverlongConfig

_SAME = 1e-9
EQUAL_REWARDS = ("all_right", "all_wrong", "zero_variance")


def filter_reason(
    rewards: Sequence[float | None],
    min_valid: int,
    outcomes: Sequence[float | None] | None = None,
    *,
    drop_equal_outcomes: bool = False,
) -> str | None:
    """Why a group teaches nothing, or None when it does.

    Reasons: `too_few_rewards` (graders failed); where rewards are equal, so that every advantage would be zero,
    `all_right` and `all_wrong` by the outcomes, else `zero_variance`.

    Args:
        outcomes: how right each completion is; by default its reward.
        drop_equal_outcomes: `all_right` and `all_wrong` also where rewards differ.
    """
    values = [reward for reward in rewards if reward is not None]
    if len(values) < min_valid:
        return "too_few_rewards"
    pairs = zip(rewards, rewards if outcomes is None else outcomes, strict=True)
    known = [outcome for reward, outcome in pairs if reward is not None and outcome is not None]
    equal = max(values) - min(values) <= _SAME
    if known and (equal or drop_equal_outcomes):
        if min(known) >= 1.0 - _SAME:
            return "all_right"
        if max(known) <= _SAME:
            return "all_wrong"
    return "zero_variance" if equal else None


def soft_overlong(length: int, max_tokens: int, config: OverlongConfig) -> float:
    """What to add to the reward of a completion of `length` tokens, 0 to -penalty (DAPO, arXiv 2503.14476, eq. 13).

    0 up to max_tokens - buffer; from there a straight line down to -penalty at max_tokens.
    """
    over = length - (max_tokens - config.buffer)
    return -config.penalty * min(1.0, max(0.0, over / config.buffer))


@dataclass(frozen=True, slots=True)
class Screened:
    """A group after the filters."""

    rewards: tuple[float | None, ...]
    """To train on: None also where a completion is masked out, and overlong completions punished."""
    reason: str | None
    """Why the group is not trained on; `too_few_rewards` is a failure of graders, the others are filters."""
    completions: dict[str, int]
    """Completions that were masked out or counted, by reason: `truncated`, `garbled`, `repeating`, `overlong`."""


def screen(
    rewards: Sequence[float | None],
    lengths: Sequence[int],
    finish_reasons: Sequence[str],
    defects: Sequence[str | None],
    config: FilterConfig,
    min_valid: int,
    max_tokens: int,
    outcomes: Sequence[float | None] | None = None,
) -> Screened:
    """Filter one group.

    Each completion has at most one reason: its defect before its truncation, since what repeats without end is also cut
    off. Whether rewards are equal is judged before the overlong punishment, or length alone would be learned.

    Args:
        rewards: per completion; None is a failed grader.
        lengths: sampled tokens.
        finish_reasons: `length` means truncated.
        defects: `garbled`, `repeating` or None; may be empty when no check looks at text.
        min_valid: fewest rewards of a group to train on.
        max_tokens: the sampling limit that `overlong` is measured from.
        outcomes: how right each completion is; by default its reward.
    """
    found = _reasons(finish_reasons, defects, config)
    completions = Counter(reason for reason in found if reason is not None)
    masked = [reason is not None and getattr(config, reason) == "mask" for reason in found]
    kept = [None if out else reward for reward, out in zip(rewards, masked, strict=True)]
    reason = _group_reason(rewards, kept, outcomes, found, config, min_valid)
    if config.overlong is not None:
        penalties = [soft_overlong(length, max_tokens, config.overlong) for length in lengths]
        completions["overlong"] = sum(penalty < 0 for penalty in penalties)
        kept = [None if value is None else value + extra for value, extra in zip(kept, penalties, strict=True)]
    return Screened(tuple(kept), reason, {name: count for name, count in completions.items() if count})


def _reasons(finish_reasons: Sequence[str], defects: Sequence[str | None], config: FilterConfig) -> list[str | None]:
    """Per completion, the first reason whose filter is on."""
    reasons: list[str | None] = []
    for finish, defect in zip(finish_reasons, defects or [None] * len(finish_reasons), strict=True):
        named = (defect, "truncated" if finish == "length" else None)
        reasons.append(next((name for name in named if name and getattr(config, name) != "off"), None))
    return reasons


def _group_reason(
    rewards: Sequence[float | None],
    kept: Sequence[float | None],
    outcomes: Sequence[float | None] | None,
    found: Sequence[str | None],
    config: FilterConfig,
    min_valid: int,
) -> str | None:
    if filter_reason(rewards, min_valid) == "too_few_rewards":
        return "too_few_rewards"
    by_outcome = config.equal_outcomes == "drop"
    reason = filter_reason(kept, min_valid, outcomes, drop_equal_outcomes=by_outcome)
    if reason == "too_few_rewards":  # enough before masking: name what masked most of them
        masking = Counter(name for name in found if name and getattr(config, name) == "mask")
        return masking.most_common(1)[0][0]
    if by_outcome and reason in ("all_right", "all_wrong"):
        return reason
    return None if reason in EQUAL_REWARDS and config.equal_rewards == "keep" else reason
