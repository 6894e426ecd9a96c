"""How the plots look: palette, figure and axes set-up, smoothing, encoding. Uses matplotlib's objects, never pyplot."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/): told apart with every common colour vision deficiency.
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE)
INK, MUTED, GRID, PALE = "#222222", "#666666", "#DDDDDD", "#BFC7CE"
WIDTH_IN, DPI = 9.0, 100
SMALL, NORMAL = 9, 10


def new_figure(height_in: float, rows: int = 1, cols: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure 900 px wide and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
    axes = figure.subplots(rows, cols, squeeze=False, **subplots)
    return figure, list(axes.flat)


def dress(ax: Axes, title: str = "", x: str = "", y: str = "", grid: Literal["both", "x", "y"] = "y") -> None:
    """Title at the left, axis labels, light grid, no box."""
    ax.set_title(title, fontsize=NORMAL, color=INK, loc="left", fontweight="bold")
    ax.set_xlabel(x, fontsize=SMALL, color=MUTED)
    ax.set_ylabel(y, fontsize=SMALL, color=MUTED)
    ax.tick_params(labelsize=SMALL, colors=MUTED, length=3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(GRID)
    ax.set_axisbelow(True)
    ax.grid(axis=grid, color=GRID, linewidth=0.6)


def legend(ax: Axes, **kwargs: Any) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(**{"fontsize": SMALL, "frameon": False, "labelcolor": INK, **kwargs})


def whole_steps(ax: Axes) -> None:
    """Tick the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def plain_numbers(ax: Axes) -> None:
    """Write y ticks as 0.0004 or 2e-06, without a factor above the axis that would push the title up."""
    from matplotlib.ticker import FuncFormatter

    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def window(count: int) -> int:
    """Points that a smoothed curve averages over: a twentieth of the run, odd, at least 5."""
    return max(5, count // 20) | 1


def smooth(values: Sequence[float], width: int) -> list[float]:
    """Centred moving average over `width` (odd) points; near the ends over those of them that exist."""
    result = []
    for i in range(len(values)):
        part = values[max(0, i - width // 2) : i + width // 2 + 1]
        result.append(sum(part) / len(part))
    return result


def curve(ax: Axes, steps: Sequence[float], values: Sequence[float], color: str, label: str, **line: Any) -> None:
    """Raw values faint, their moving average on top."""
    width = window(len(values))
    if len(values) <= width:
        ax.plot(steps, values, color=color, linewidth=1.8, marker="o", markersize=3, label=label, **line)
        return
    ax.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
    ax.plot(steps, smooth(values, width), color=color, linewidth=1.8, label=label, **line)


def line_styles(count: int) -> list[dict[str, Any]]:
    """Colour and dashes of `count` curves in one plot, each different: a new pattern of dashes once colours run out."""
    dashes: list[Any] = ["solid", *((0, (4, 2) + (1, 2) * dots) for dots in range(count // len(CYCLE)))]
    return [{"color": CYCLE[i % len(CYCLE)], "linestyle": dashes[i // len(CYCLE)]} for i in range(count)]


def averaged(count: int) -> str:
    """Says in a title what the thick line is."""
    width = window(count)
    return f" (thick: mean of {width} steps)" if count > width else ""


def svg_uri(figure: Figure) -> str:
    """The figure as a `data:` URI of an SVG. As an image of its own, its ids can't clash with other figures'."""
    return "data:image/svg+xml;base64," + base64.b64encode(_bytes(figure, "svg")).decode("ascii")


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG, 900 px wide."""
    return _bytes(figure, "png")


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    # No date: the same data gives the same file, as far as matplotlib allows.
    figure.savefig(buffer, format=kind, facecolor="white", metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
