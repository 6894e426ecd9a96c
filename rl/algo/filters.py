"""Which groups are worth training on."""

from __future__ import annotations

from collections.abc import Sequence

_SAME = 1e-9


def filter_reason(rewards: Sequence[float | None], min_valid: int) -> str | None:
    """Why a group teaches nothing, or None when it does.

    Reasons: `too_few_rewards` (graders failed), `all_right` and `all_wrong` (every advantage would be zero),
    `zero_variance` (equal rewards in between).
    """
    values = [reward for reward in rewards if reward is not None]
    if len(values) < min_valid:
        return "too_few_rewards"
    if max(values) - min(values) > _SAME:
        return None
    if values[0] >= 1.0 - _SAME:
        return "all_right"
    if values[0] <= _SAME:
        return "all_wrong"
    return "zero_variance"
