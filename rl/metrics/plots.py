"""Plots of the RL run's curves. Each function takes metrics rows and gives a figure, or None without its keys.

`rl.metrics.style` turns a figure into SVG or PNG. See `plots_timeline` and `plots_pipeline` for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rl.metrics.files import PROBE_THRESHOLD, EvalResult, FateRow, MetricRow, column, sources
from rl.metrics.style import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PURPLE,
    SMALL,
    VERMILLION,
    averaged,
    curve,
    dress,
    legend,
    line_styles,
    new_figure,
    plain_numbers,
    smooth,
    whole_steps,
    window,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEP = "optimizer step"
Rows = Sequence[MetricRow]


def reward(rows: Rows) -> Figure | None:
    """Mean reward per step, and per source."""
    steps, values = column(rows, "reward/mean")
    if not values:
        return None
    figure, (ax,) = new_figure(3.4)
    names = sources(rows, "reward")
    for source, line in zip(names, line_styles(len(names)), strict=True):
        at, by_source = column(rows, f"reward/{source}")
        ax.plot(at, smooth(by_source, window(len(by_source))), **line, linewidth=1.2, label=source)
    curve(ax, steps, values, INK, "all", zorder=5)
    dress(ax, "Mean reward" + averaged(len(values)), STEP, "reward")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole_steps(ax)
    return figure


def components(rows: Rows) -> Figure | None:
    """Mean of each part of the grades per step."""
    names = sources(rows, "component")
    if not names:
        return None
    figure, (ax,) = new_figure(2.8)
    for name, line in zip(names, line_styles(len(names)), strict=True):
        curve(ax, *column(rows, f"component/{name}"), label=name, **line)
    dress(ax, "Parts of the reward" + averaged(len(rows)), STEP, "mean value")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole_steps(ax)
    return figure


def accuracy(rows: Rows, evals: Sequence[EvalResult]) -> Figure | None:
    """One panel per task: accuracy of the sampled training prompts, mean@k and Pass@k of the evaluations."""
    names = sorted(set(sources(rows, "accuracy")) | {name for result in evals for name in result.tasks})
    if not names:
        return None
    cols = 2 if len(names) in (2, 4) else min(3, len(names))
    lines = -(-len(names) // cols)
    figure, axes = new_figure(0.5 + 2.1 * lines, lines, cols, sharex=True, sharey=True)
    for i, (ax, name) in enumerate(zip(axes, names, strict=False)):
        steps, values = column(rows, f"accuracy/{name}")
        if values:
            curve(ax, steps, [100 * value for value in values], BLUE, "training prompts")
        _eval_lines(ax, name, evals)
        dress(ax, name, STEP if i + cols >= len(names) else "", "correct, %" if i % cols == 0 else "")
        ax.tick_params(labelbottom=i + cols >= len(names))
        ax.set_ylim(-3, 103)
        whole_steps(ax)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    by_label = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(by_label.values()), list(by_label), loc="outside upper center", ncols=3, fontsize=SMALL, frameon=False
    )
    return figure


def _eval_lines(ax: Axes, name: str, evals: Sequence[EvalResult]) -> None:
    held = [(result.step, result.k, result.tasks[name]) for result in evals if name in result.tasks]
    if not held:
        return
    k = held[-1][1]
    mean = [(step, 100 * task.mean) for step, _, task in held if task.mean is not None]
    passed = [(step, 100 * task.passed) for step, _, task in held if task.passed is not None]
    style: dict[str, Any] = {"color": VERMILLION, "markersize": 5, "linewidth": 1.2}
    ax.plot(*zip(*mean, strict=True), marker="o", label=f"evaluation, mean@{k}", **style)
    ax.plot(
        *zip(*passed, strict=True),
        marker="^",
        linestyle=":",
        markerfacecolor="white",
        label=f"evaluation, Pass@{k}",
        **style,
    )


def response_length(rows: Rows) -> Figure | None:
    """Mean and longest completion in tokens; share of completions cut at the limit."""
    steps, mean = column(rows, "response/length_mean")
    if not mean:
        return None
    figure, (left, right) = new_figure(2.8, 1, 2)
    at, longest = column(rows, "response/length_max")
    left.plot(at, longest, color=PALE, linewidth=1.0, label="longest")
    curve(left, steps, mean, BLUE, "mean")
    dress(left, "Completion length", STEP, "sampled tokens")
    left.set_ylim(bottom=0)
    legend(left)
    at, cut = column(rows, "response/truncated_fraction")
    curve(right, at, [100 * value for value in cut], VERMILLION, "cut")
    dress(right, "Completions cut at the limit", STEP, "% of completions")
    _from_zero(right)
    for ax in (left, right):
        whole_steps(ax)
    return figure


def entropy(rows: Rows) -> Figure | None:
    """Mean entropy of the policy's next-token distribution."""
    steps, values = column(rows, "entropy")
    if not values:
        return None
    figure, (ax,) = new_figure(2.6)
    curve(ax, steps, values, BLUE, "entropy")
    dress(ax, "Policy entropy" + averaged(len(values)), STEP, "nats per token")
    _from_zero(ax)
    whole_steps(ax)
    return figure


def kl_and_clip(rows: Rows) -> Figure | None:
    """KL of behaviour against proximal policy, and the share of the loss that clipping holds back.

    With one update per step the ratio is 1 and nothing can be clipped; a panel of zeros is left out.
    """
    panels = []
    steps, kl = column(rows, "kl/behaviour")
    if kl:
        panels.append((steps, kl, BLUE, "KL, behaviour against proximal (k3)", "nats per token"))
    steps, clipped = column(rows, "clip/fraction")
    if any(clipped):
        panels.append((steps, [100 * value for value in clipped], VERMILLION, "Clipped", "% clipped"))
    if not panels:
        return None
    figure, axes = new_figure(2.8, 1, len(panels))
    for ax, (at, values, color, title, unit) in zip(axes, panels, strict=True):
        curve(ax, at, values, color, title)
        dress(ax, title + averaged(len(values)) if len(panels) == 1 else title, STEP, unit)
        plain_numbers(ax)
        _from_zero(ax)
        whole_steps(ax)
    return figure


def staleness(rows: Rows) -> Figure | None:
    """How many groups were trained at which age, and mean and largest age per step."""
    ages: Counter[int] = Counter()
    for row in rows:
        for age, count in (row.get("staleness/hist") or {}).items():
            ages[int(age)] += int(count or 0)
    steps, mean = column(rows, "staleness/mean")
    if not ages and not mean:
        return None
    figure, (left, right) = new_figure(2.8, 1, 2)
    order = list(range(max(ages) + 1)) if ages else []
    bars = left.bar([str(age) for age in order], [ages[age] for age in order], color=BLUE, width=0.7)
    total = max(1, sum(ages.values()))
    left.bar_label(bars, [f"{ages[age] / total:.0%}" for age in order], fontsize=SMALL, color=INK, padding=2)
    left.margins(y=0.15)
    dress(left, "Groups by age when trained", "age, versions behind the learner", "groups")
    at, largest = column(rows, "staleness/max")
    right.step(at, largest, color=PALE, linewidth=1.2, where="mid", label="oldest")
    curve(right, steps, mean, BLUE, "mean")
    dress(right, "Age over the run", STEP, "versions")
    right.set_ylim(0, 1.1 * max([1.0, *largest, *mean]))
    legend(right, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)
    whole_steps(right)
    return figure


def probe_delta(rows: Rows) -> Figure | None:
    """|logprob of the engine - logprob of the learner| on the probe batch after each push, and the limit."""
    steps, mean = column(rows, "probe/logprob_delta_mean")
    if not mean:
        return None
    _, limits = column(rows, "probe/threshold")
    limit = limits[-1] if limits else PROBE_THRESHOLD
    floor = 1e-10  # an exact match has no place on a log axis
    figure, (ax,) = new_figure(3.0)
    at, largest = column(rows, "probe/logprob_delta_max")
    ax.plot(at, [max(value, floor) for value in largest], color=PALE, linewidth=1.2, label="largest of any token")
    ax.plot(steps, [max(value, floor) for value in mean], color=BLUE, linewidth=1.6, label="mean over tokens")
    ax.axhline(limit, color=VERMILLION, linestyle="--", linewidth=1.4, label=f"limit for the mean, {limit:g}")
    ax.set_yscale("log")
    dress(ax, "Engine against learner on the probe batch", STEP, "|Δ logprob|, nats")
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole_steps(ax)
    return figure


def grad_norm_and_lr(rows: Rows) -> Figure | None:
    """Norm of the gradient before clipping, learning rate, and loss."""
    if not column(rows, "grad_norm")[1]:
        return None
    figure, axes = new_figure(2.6, 1, 3)
    panels = (
        ("grad_norm", "Gradient norm", "norm", BLUE),
        ("lr", "Learning rate", "", GREEN),
        ("loss", "Loss", "", PURPLE),
    )
    for ax, (key, title, unit, color) in zip(axes, panels, strict=True):
        at, values = column(rows, key)
        if key == "lr":  # a schedule has no noise to average out
            ax.plot(at, values, color=color, linewidth=1.8)
        else:
            curve(ax, at, values, color, key)
        dress(ax, title, STEP, unit)
        plain_numbers(ax)
        whole_steps(ax)
    _from_zero(axes[0])
    _from_zero(axes[1])
    return figure


def fates_per_step(fates: Sequence[FateRow]) -> dict[str, list[int]]:
    """How many groups met each fate on the way to steps 1, 2, ..., the last one trained.

    A group that is not trained counts for the step under way: the one after the version that it was closed at.
    """
    last = max((row.step for row in fates if row.fate == "trained" and row.step is not None), default=0)
    counts = {kind: [0] * last for kind in ("trained", "filtered", "stale", "failed")}
    for row in fates:
        if row.fate in counts and row.step is not None:
            step = row.step if row.fate == "trained" else row.step + 1
            if step <= last:
                counts[row.fate][step - 1] += 1
    return counts


def fates_over_time(fates: Sequence[FateRow]) -> Figure | None:
    """Groups per step by fate."""
    counts = fates_per_step(fates)
    steps = range(1, len(counts["trained"]) + 1)
    if not steps:
        return None
    figure, (ax,) = new_figure(2.6)
    for kind, color in (("trained", BLUE), ("filtered", ORANGE), ("stale", PURPLE), ("failed", VERMILLION)):
        curve(ax, steps, counts[kind], color, kind)
    dress(ax, "Groups per step by fate" + averaged(len(steps)), STEP, "groups")
    _from_zero(ax)
    legend(ax, loc="center left", bbox_to_anchor=(1.0, 0.5))
    whole_steps(ax)
    return figure


def _from_zero(ax: Axes) -> None:
    """Start the y axis at 0, with room above where everything is 0."""
    top = ax.get_ylim()[1]
    ax.set_ylim(0, top if ax.dataLim.y1 > 0 else 1)
