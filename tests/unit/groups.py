"""Groups as the driver sees them, for tests of what only counts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rl.records import Grades, GroupMeta, ScoredGroup


def make_group(
    uid: int = 0,
    rewards: tuple[float | None, ...] = (1.0, 0.0),
    *,
    lengths: tuple[int, ...] | None = None,
    prompt_length: int = 10,
    oldest: int = 0,
    newest: int | None = None,
    source: str = "counting",
    finish_reasons: tuple[str, ...] | None = None,
    payload: Any = None,
) -> ScoredGroup:
    """A finished group of `len(rewards)` completions, 5 tokens each unless said otherwise."""
    count = len(rewards)
    meta = GroupMeta(
        uid=uid,
        sample_id=f"sample-{uid}",
        source=source,
        lengths=lengths or (5,) * count,
        prompt_length=prompt_length,
        finish_reasons=finish_reasons or ("stop",) * count,
        oldest_version=oldest,
        newest_version=oldest if newest is None else newest,
        worker="rollout-0",
        started_s=0.0,
        finished_s=1.0,
    )
    payload = payload if payload is not None else f"payload-{uid}"
    return ScoredGroup(meta, payload, rewards, plain_grades(rewards))


def plain_grades(values: tuple[float | None, ...], **changes: Any) -> Grades:
    """The grades of verifiers alone, where reward and outcome are one; None is a grader that was late."""
    statuses = tuple("ok" if value is not None else "timeout" for value in values)
    failure = "timeout" if None in values else ""
    return replace(Grades(values, values, values, statuses, ({},) * len(values), failure), **changes)
