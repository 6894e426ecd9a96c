"""Plots of a curated set: what was left after each step, shares against those wanted, lengths and rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from rl.metrics.style import BLUE, INK, MUTED, ORANGE, PALE, SMALL, dress, legend, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def funnel(steps: Sequence[tuple[str, int]]) -> Figure | None:
    """Rows that are left after each step, in order; the number beside a bar says how many went."""
    if not steps:
        return None
    figure, (ax,) = new_figure(0.8 + 0.32 * len(steps))
    names, left = [name for name, _ in steps], [count for _, count in steps]
    ax.barh(range(len(steps)), left, color=[BLUE if i in (0, len(steps) - 1) else PALE for i in range(len(steps))])
    for place, (before, count) in enumerate(zip([left[0], *left], left, strict=False)):
        label = f"{count:,}" + (f"  (-{before - count:,})" if before > count else "")
        ax.annotate(label, (count, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=SMALL)
    ax.set_yticks(range(len(steps)), names)
    ax.set_ylim(len(steps) - 0.4, -0.6)
    ax.set_xlim(0, 1.25 * max(1, left[0]))
    dress(ax, "Rows left after each step", "rows", grid="x")
    ax.tick_params(axis="y", labelcolor=INK, length=0)
    return figure


def shares(wanted: Mapping[str, float], reached: Mapping[str, float]) -> Figure | None:
    """Share of each group in the set, beside the share that was wanted, where one was."""
    names = list(reached)
    if not names:
        return None
    figure, (ax,) = new_figure(0.8 + 0.4 * len(names))
    places = np.arange(len(names))
    if wanted:
        ax.barh(places - 0.19, [100 * wanted.get(name, 0.0) for name in names], height=0.36, color=PALE, label="wanted")
    ax.barh(places + 0.19 * bool(wanted), [100 * reached[name] for name in names], height=0.36, color=BLUE, label="set")
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    dress(ax, "Composition", "% of the rows", grid="x")
    ax.tick_params(axis="y", labelcolor=INK, length=0)
    legend(ax, loc="lower right")
    return figure


def distributions(
    lengths: np.ndarray, lengths_right: np.ndarray, edges: np.ndarray, rewards: np.ndarray
) -> Figure | None:
    """Histograms that were counted elsewhere.

    Args:
        lengths, lengths_right: attempts and right attempts per bin of `edges` (tokens, one more than bins).
        rewards: attempts per bin over [0, 1].
    """
    if not lengths.sum() and not rewards.sum():
        return None
    figure, (left, right) = new_figure(3.0, 1, 2)
    widths = np.diff(edges)
    left.bar(edges[:-1], lengths, widths, align="edge", color=PALE, label="all attempts")
    left.bar(edges[:-1], lengths_right, widths, align="edge", color=BLUE, label="right ones")
    left.set_xscale("symlog", linthresh=8)
    dress(left, "Lengths", "sampled tokens", "attempts")
    legend(left, loc="upper right")
    bins = np.linspace(0, 1, len(rewards) + 1)
    right.bar(bins[:-1], rewards, np.diff(bins), align="edge", color=ORANGE, edgecolor=MUTED, linewidth=0.3)
    dress(right, "Rewards", "reward of an attempt", "attempts")
    return figure
