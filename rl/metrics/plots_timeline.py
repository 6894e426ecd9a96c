"""The timeline plot: who worked when, in a window of some steps, and busy shares over the whole run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rl.metrics.files import IDLE_PHASES, Span
from rl.metrics.overlap import Interval, Overlap, busy_in_bins, busy_intervals, clip, measure, union
from rl.metrics.style import (
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    dress,
    legend,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASE_COLORS = {
    "generate": BLUE,
    "train": VERMILLION,
    "push": PURPLE,
    "probe": SKY,
    "eval": GREEN,
    "reward": ORANGE,
    "score": ORANGE,
    **dict.fromkeys(IDLE_PHASES, GRID),
}
MAX_ACTORS = 12
STEPS_SHOWN = 8
BINS = 60


def timeline(spans: Sequence[Span]) -> Figure | None:
    """Gantt chart of a few steps in the middle of the run above busy shares over the run; None without training."""
    overlap = measure(spans)
    if overlap is None:
        return None
    actors = order_actors({span.actor for span in spans})[:MAX_ACTORS]
    gantt_height = 0.9 + 0.34 * len(actors)
    figure, (top, bottom) = new_figure(gantt_height + 2.4, 2, 1, height_ratios=[gantt_height, 2.4])
    _gantt(top, spans, actors, _middle(spans), overlap)
    _shares(bottom, spans, overlap)
    return figure


def order_actors(actors: set[str]) -> list[str]:
    """The learner, then rollout workers by number, then the rest."""

    def key(actor: str) -> tuple[int, int, str]:
        kind = 0 if actor == "learner" else 1 if actor.startswith("rollout") else 2
        digits = actor.rpartition("-")[2]
        return kind, int(digits) if digits.isdigit() else 0, actor

    return sorted(actors, key=key)


def _middle(spans: Sequence[Span]) -> Interval:
    """The time of `STEPS_SHOWN` training steps in the middle of the run, with the wait before the first."""
    ends = sorted(span.end for span in spans if span.actor == "learner" and span.phase == "train")
    first = max(0, len(ends) // 2 - STEPS_SHOWN // 2 - 1)
    if first == 0:
        start = min(span.start for span in spans if span.phase in ("generate", "train"))
        return start, ends[min(STEPS_SHOWN, len(ends)) - 1]
    return ends[first], ends[min(first + STEPS_SHOWN, len(ends) - 1)]


def _gantt(ax: Axes, spans: Sequence[Span], actors: Sequence[str], shown: Interval, overlap: Overlap) -> None:
    names = sorted({span.phase for span in spans}, key=lambda name: (list(PHASE_COLORS) + [name]).index(name))
    used = set()
    for line, actor in enumerate(actors):
        for phase in sorted(names, key=lambda name: name not in IDLE_PHASES):  # work is drawn over waiting
            pieces = union((s.start, s.end) for s in spans if s.actor == actor and s.phase == phase)
            pieces = clip(union(pieces, gap=(shown[1] - shown[0]) / 2000), shown)  # gaps under half a pixel
            if pieces:
                bars = [(start, end - start) for start, end in pieces]
                used.add(phase)
                ax.broken_barh(bars, (line - 0.36, 0.72), facecolors=PHASE_COLORS.get(phase, MUTED), linewidth=0)
        busy = f"{overlap.busy[actor]:.0%} busy"
        ax.annotate(busy, (1.01, line), xycoords=("axes fraction", "data"), va="center", fontsize=SMALL, color=INK)
    for phase in [name for name in names if name in used]:
        ax.broken_barh([], (0, 0), facecolors=PHASE_COLORS.get(phase, MUTED), label=phase)
    ax.set_yticks(range(len(actors)), actors)
    ax.set_ylim(len(actors) - 0.4, -0.6)
    ax.set_xlim(*shown)
    dress(ax, "Some steps in the middle of the run", "seconds since the run began", grid="x")
    ax.tick_params(axis="y", labelcolor=INK, length=0)
    legend(ax, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=8, borderaxespad=0.2, handlelength=1.2)


def _shares(ax: Axes, spans: Sequence[Span], overlap: Overlap) -> None:
    start, end = overlap.window
    edges = [start + (end - start) * i / BINS for i in range(BINS + 1)]
    rollouts = [actor for actor in overlap.busy if actor.startswith("rollout")]
    shares = [busy_in_bins(busy_intervals(spans, actor), edges) for actor in rollouts]
    rollout = [100 * sum(values) / len(values) for values in zip(*shares, strict=True)]
    learner = [100 * value for value in busy_in_bins(busy_intervals(spans, "learner"), edges)]
    named = f"rollout, {overlap.rollout_busy:.0%} over the run"
    ax.stairs(rollout, edges, color=BLUE, linewidth=1.6, label=named, baseline=None)
    ax.stairs(
        learner, edges, color=VERMILLION, linewidth=1.6, label=f"learner, {overlap.busy['learner']:.0%}", baseline=None
    )
    ax.set_ylim(0, 105)
    ax.set_xlim(start, end)
    dress(ax, "Busy share over the whole run", "seconds since the run began", "% of the time")
    legend(ax, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
