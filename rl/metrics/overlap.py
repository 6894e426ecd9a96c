"""Who worked and who waited: arithmetic on the spans of a timeline. Pure functions of intervals in seconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rl.metrics.files import IDLE_PHASES, Span

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shares (0..1) of the training window. `both + learner_waited + rollout_waited + neither == 1`."""

    window: Interval
    busy: dict[str, float]
    """Share of the window in which each actor worked."""
    both: float
    learner_waited: float
    """At least one rollout worker worked, the learner did not."""
    rollout_waited: float
    """The learner worked, no rollout worker did."""
    neither: float

    @property
    def rollout_busy(self) -> float:
        """Mean busy share of the rollout workers."""
        shares = [share for actor, share in self.busy.items() if actor.startswith("rollout")]
        return sum(shares) / len(shares)


def measure(spans: Sequence[Span]) -> Overlap | None:
    """Busy shares between the first generated token and the end of the last training step.

    Evaluations before and after lie outside this window and do not count. None if there is no learner span of phase
    `train` or no rollout span of phase `generate`.
    """
    starts = [span.start for span in spans if span.phase == "generate" and span.actor.startswith("rollout")]
    ends = [span.end for span in spans if span.phase == "train" and span.actor == "learner"]
    if not starts or not ends or max(ends) <= min(starts):
        return None
    window = (min(starts), max(ends))
    total = window[1] - window[0]
    work = {actor: clip(busy_intervals(spans, actor), window) for actor in sorted({span.actor for span in spans})}
    rollout = union(piece for actor, pieces in work.items() if actor.startswith("rollout") for piece in pieces)
    learner = work["learner"]
    both = length(intersect(learner, rollout)) / total
    learner_share, rollout_share = length(learner) / total, length(rollout) / total
    return Overlap(
        window=window,
        busy={actor: length(pieces) / total for actor, pieces in work.items()},
        both=both,
        learner_waited=rollout_share - both,
        rollout_waited=learner_share - both,
        neither=1.0 - learner_share - rollout_share + both,
    )


def busy_intervals(spans: Iterable[Span], actor: str) -> list[Interval]:
    """Disjoint intervals in which `actor` worked; overlapping spans (requests in flight together) count once."""
    return union((span.start, span.end) for span in spans if span.actor == actor and span.phase not in IDLE_PHASES)


def busy_in_bins(intervals: Sequence[Interval], edges: Sequence[float]) -> list[float]:
    """Share of each bin `[edges[i], edges[i+1])` that disjoint `intervals` cover."""
    return [length(clip(intervals, (low, high))) / (high - low) for low, high in pairwise(edges)]


def union(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """Sorted disjoint intervals with the same cover; pieces no more than `gap` apart are joined."""
    merged: list[Interval] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1] + gap:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def intersect(left: Sequence[Interval], right: Sequence[Interval]) -> list[Interval]:
    """Where both of two sorted disjoint lists cover."""
    result: list[Interval] = []
    i = j = 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            result.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return result


def clip(intervals: Sequence[Interval], window: Interval) -> list[Interval]:
    return intersect(intervals, [window])


def length(intervals: Iterable[Interval]) -> float:
    """Total seconds of disjoint intervals."""
    return sum(end - start for start, end in intervals)
