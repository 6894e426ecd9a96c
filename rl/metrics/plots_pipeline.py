"""Plots of what stands around the RL run: SFT stages, curation, scores before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rl.metrics.files import EvalResult, EvalTask, MetricRow, column
from rl.metrics.style import (
    BLUE,
    CYCLE,
    INK,
    MUTED,
    ORANGE,
    PALE,
    SMALL,
    VERMILLION,
    averaged,
    curve,
    dress,
    legend,
    new_figure,
    whole_steps,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEP = "optimizer step"
ALL = "all tasks"


def sft_loss(stages: Mapping[str, Sequence[MetricRow]]) -> Figure | None:
    """Loss of each SFT stage, side by side: on one scale a late stage would be a flat line at the bottom."""
    held = {name: column(rows, "loss") for name, rows in stages.items()}
    held = {name: pair for name, pair in held.items() if pair[1]}
    if not held:
        return None
    figure, axes = new_figure(2.8, 1, len(held))
    for ax, color, (name, (steps, values)) in zip(axes, CYCLE * 3, held.items(), strict=False):
        curve(ax, steps, values, color, "loss")
        dress(
            ax,
            name + averaged(len(values)) if len(held) == 1 else name,
            STEP,
            "nats per token" if ax is axes[0] else "",
        )
        text = f"ends at {values[-1]:.3g}"
        ax.annotate(text, (0.97, 0.93), xycoords="axes fraction", ha="right", va="top", fontsize=SMALL, color=INK)
        whole_steps(ax)
        ax.set_ylim(bottom=0)
    return figure


def curation(columns: Mapping[str, Sequence[Any]]) -> Figure | None:
    """Pass@1 against Pass@N of the candidates with the region kept, and how many stand where.

    A column `count` says for how many candidates a row stands; without it each is one.
    """
    counts = columns.get("count") or [1] * len(columns["kept"])
    points = list(zip(columns["pass_at_1"], columns["pass_at_n"], columns["kept"], counts, strict=True))
    if not points:
        return None
    attempts = set(columns.get("n") or ())
    figure, (left, right) = new_figure(3.8, 1, 2, width_ratios=[1.15, 1])
    _bubbles(left, points)
    _stacked(right, points, int(attempts.pop()) if len(attempts) == 1 else None)
    return figure


_Point = tuple[float, float, bool, int]


def _bubbles(ax: Axes, points: Sequence[_Point]) -> None:
    everyone: Counter[tuple[float, float]] = Counter()
    chosen: Counter[tuple[float, float]] = Counter()
    for p1, pn, kept, count in points:
        everyone[round(p1, 3), round(pn, 3)] += count
        if kept:
            chosen[round(p1, 3), round(pn, 3)] += count
    scale = 900 / max(everyone.values())
    for counts, color, label in ((everyone, PALE, "candidates"), (chosen, BLUE, "kept")):
        if counts:
            x, y = zip(*counts, strict=True)
            sizes = [max(6.0, scale * count) for count in counts.values()]
            ax.scatter(x, y, s=sizes, color=color, linewidths=0, alpha=0.9, label=f"{label}, {sum(counts.values())}")
    if chosen:
        low_x, high_x = min(p1 for p1, _ in chosen), max(p1 for p1, _ in chosen)
        low_y = min(pn for _, pn in chosen)
        corner, pad = (low_x - 0.03, low_y - 0.06), 0.06
        ax.add_patch(_box(corner, high_x - low_x + pad, max(pn for _, pn in chosen) - low_y + 2 * pad))
    ax.set_xlim(-0.1, 1.1)
    ax.set_ylim(-0.12, 1.18)
    dress(ax, "Candidates (area: how many) and the region kept", "Pass@1", "Pass@N", grid="both")
    ax.legend(*_even_handles(ax), fontsize=SMALL, frameon=False, loc="lower right")


def _box(corner: tuple[float, float], width: float, height: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        corner, width, height, fill=False, edgecolor=VERMILLION, linewidth=1.4, linestyle="--", label="region kept"
    )


def _even_handles(ax: Axes) -> tuple[list[Any], list[str]]:
    """Legend marks of one size; the bubbles' own sizes would overlap there."""
    from matplotlib.lines import Line2D

    handles, labels = ax.get_legend_handles_labels()
    colors = {"candidates": PALE, "kept": BLUE}
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colors[label.split(",")[0]]) if "," in label else handle
        for handle, label in zip(handles, labels, strict=True)
    ]
    return marks, labels


def _stacked(ax: Axes, points: Sequence[_Point], attempts: int | None) -> None:
    """Histogram of Pass@1; with few and equal `attempts` one bar for each possible number of right answers."""
    each = attempts is not None and attempts <= 20
    edges = [(i - 0.5) / attempts for i in range(attempts + 2)] if attempts and each else [i / 20 for i in range(21)]
    sides = [[(p1, count) for p1, _, kept, count in points if bool(kept) is wanted] for wanted in (True, False)]
    values, weights = ([[pair[i] for pair in side] for side in sides] for i in (0, 1))
    labels = [f"kept, {sum(weights[0])}", f"left out, {sum(weights[1])}"]
    ax.hist(values, bins=edges, weights=weights, stacked=True, color=[BLUE, PALE], label=labels, rwidth=0.9)
    dress(ax, "How often the policy is right", "Pass@1", "candidates")
    legend(ax)


def before_after(before: EvalResult, after: EvalResult) -> Figure:
    """mean@k and Pass@k per task, before and after; the number is the change in percentage points."""
    names = [ALL, *sorted(set(before.tasks) & set(after.tasks))]
    figure, axes = new_figure(0.9 + 0.46 * len(names), 1, 2, sharey=True)
    for ax, field, title in zip(axes, ("mean", "passed"), (f"mean@{after.k}", f"Pass@{after.k}"), strict=True):
        old = [_score(before, name, field) for name in names]
        new = [_score(after, name, field) for name in names]
        lines = range(len(names))
        ax.barh([line - 0.19 for line in lines], old, height=0.36, color=PALE, label="before")
        ax.barh([line + 0.19 for line in lines], new, height=0.36, color=BLUE, label="after")
        for line, low, high in zip(lines, old, new, strict=True):
            color = VERMILLION if high < low - 0.05 else INK
            ax.annotate(f"{high - low:+.1f}", (max(low, high) + 1.5, line), va="center", fontsize=SMALL, color=color)
        ax.set_yticks(list(lines), names)
        ax.set_ylim(len(names) - 0.45, -0.55)
        ax.set_xlim(0, 112)
        ax.set_xticks(range(0, 101, 20))
        dress(ax, title, "% (number: change in points)", grid="x")
        ax.tick_params(axis="y", labelcolor=INK, length=0)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, fontsize=SMALL, frameon=False)
    return figure


def _score(result: EvalResult, name: str, field: str) -> float:
    holder: EvalResult | EvalTask = result if name == ALL else result.tasks[name]
    value = getattr(holder, field)
    return 0.0 if value is None else 100.0 * float(value)


def curation_reasons(columns: Mapping[str, Sequence[Any]]) -> Figure | None:
    """Candidates per source, stacked by what became of them."""
    if not columns.get("reason"):
        return None
    names = sorted(set(columns["source"]))
    rows = zip(columns["source"], columns["kept"], columns["reason"], strict=True)
    counts = Counter((source, "kept" if kept else str(reason)) for source, kept, reason in rows)
    totals = Counter(reason for (_, reason), number in counts.items() for _ in range(number))
    reasons = ["kept", *[reason for reason, _ in totals.most_common() if reason != "kept"]]
    colors = dict(zip(reasons, (BLUE, PALE, ORANGE, *CYCLE[1:5], MUTED, INK), strict=False))
    figure, (ax,) = new_figure(0.9 + 0.36 * len(names))
    left = [0] * len(names)
    for reason in reasons:
        widths = [counts[name, reason] for name in names]
        ax.barh(names, widths, left=left, color=colors.get(reason, MUTED), label=reason, height=0.7)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    ax.invert_yaxis()
    dress(ax, "Candidates by source", "candidates", grid="x")
    ax.tick_params(axis="y", labelcolor=INK, length=0)
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
