"""What do logprobs and entropies cost without the [T, V] logits, and what with them?

Forward and backward of `rl.models.token_scores.score_tokens` (tiles) and `scores_of_logits` (whole logits), float32 on
one thread, from hidden states [T, H] and a head [V, H] to the gradients of both. Every point runs in a process of its
own and reports its peak memory above what its inputs hold, and the CPU seconds of a repetition (the median).

Whole logits are measured as far as `--memory-gib` allows. Beyond, their memory follows the line through the measured
points (a constant and a share per token), and their time the cheapest token that was measured: large arrays cost more
than that, so the estimate favours them. Such values are marked `extrapolated`.

    python benchmarks/logprobs.py [--figure docs/images/logprobs.png]

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rl.metrics.environment import environment
from rl.metrics.style import BLUE, MUTED, VERMILLION, dress, legend, new_figure, png_bytes

TOKENS = (512, 1024, 2048, 4096, 8192, 16384)
WIDTHS, WIDE_TOKENS = (896, 2048), 2048
"""Wider heads, where the fourth matrix product weighs more."""
COPIES = 4.3
"""Whole logits need about so many times their size."""
WAYS = ("tiles", "whole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--memory-gib", type=float, default=12.0)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--point", nargs=3, metavar=("WAY", "TOKENS", "HIDDEN"), help="measure one point and no more")
    args = parser.parse_args()
    if args.point:
        way, tokens, hidden = args.point
        print(json.dumps(measure(way, int(tokens), int(hidden), args.vocabulary)))
        return
    points = [point(way, tokens, args.hidden, args.vocabulary) for tokens, way in plan(args)]
    wide = [point(way, WIDE_TOKENS, hidden, args.vocabulary) for hidden in WIDTHS for way in WAYS]
    summary = summarise(points, wide, args)
    if args.figure:
        args.figure.write_bytes(png_bytes(draw(summary)))
    print(json.dumps(summary))


def plan(args: argparse.Namespace) -> list[tuple[int, str]]:
    """Points that fit the memory; the ways take turns, so that a drift of the machine meets both."""
    fits = args.memory_gib * 2**30 / (COPIES * 4 * args.vocabulary)
    return [(tokens, way) for tokens in TOKENS for way in WAYS if way == "tiles" or tokens <= fits]


def point(way: str, tokens: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--point", way, str(tokens), str(hidden), "--vocabulary", str(vocabulary)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{way:5} T={tokens:5} H={hidden:4} {result['gib']:6.2f} GiB {result['seconds']:7.2f} s", flush=True)
    return result


def measure(way: str, tokens: int, hidden: int, vocabulary: int) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    states = torch.randn(tokens, hidden).requires_grad_()
    weight = torch.randn(vocabulary, hidden).mul_(hidden**-0.5).requires_grad_()
    targets, factors = torch.randint(0, vocabulary, (tokens,)), torch.randn(tokens)
    few = slice(0, 4)
    once(way, states[few].detach().requires_grad_(), weight[:512].detach(), targets[few] % 512, factors[few])
    before = peak_gib()
    seconds = []
    for _ in range(max(1, 1024 // tokens)):
        states.grad = weight.grad = None
        start = time.process_time()
        total = once(way, states, weight, targets, factors)
        seconds.append(time.process_time() - start)
    return {
        "way": way,
        "tokens": tokens,
        "hidden": hidden,
        "gib": round(peak_gib() - before, 3),
        "seconds": round(statistics.median(seconds), 3),
        # The same numbers from both ways, or the comparison means nothing.
        "loss": total,
        "grad_norm": float(weight.grad.norm()),
    }


def once(way: str, states: Any, weight: Any, targets: Any, factors: Any) -> float:
    """Forward and backward of a weighted sum of logprobs at temperature 0.8; the entropy is made too."""
    from rl.config.learner import LogitsConfig
    from rl.models.token_scores import Readout, score_tokens, scores_of_logits

    readout = Readout(temperature=0.8)
    if way == "tiles":
        scores = score_tokens(states, weight, targets, readout, LogitsConfig())
    else:
        scores = scores_of_logits(states @ weight.T, targets, readout)
    loss = (scores.logprobs * factors).sum()
    loss.backward()
    return float(loss.detach())


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def summarise(points: list[dict[str, Any]], wide: list[dict[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    curves = {way: [p for p in points if p["way"] == way] for way in WAYS}
    pairs = [(t, w) for t in curves["tiles"] for w in curves["whole"] if t["tokens"] == w["tokens"]]
    for tiles, whole in [*pairs, *zip(wide[::2], wide[1::2], strict=True)]:
        np.testing.assert_allclose(tiles["loss"], whole["loss"], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(tiles["grad_norm"], whole["grad_norm"], rtol=1e-4)
    last, measured = curves["tiles"][-1], len(curves["whole"])
    for missing in curves["tiles"][measured:]:
        curves["whole"].append(extrapolate(curves["whole"][:measured], missing["tokens"]))
    whole = curves["whole"][-1]
    return {
        "benchmark": "logprobs",
        "vocabulary": args.vocabulary,
        "hidden": args.hidden,
        "curves": curves,
        "wide": wide,
        "at_most_tokens": {
            "tokens": last["tokens"],
            "extrapolated": whole.get("extrapolated", False),
            "memory_ratio": round(last["gib"] / whole["gib"], 4),
            "time_ratio": round(last["seconds"] / whole["seconds"], 3),
        },
        "measured_ratios": [ratios(t, w) for t, w in pairs],
        "wide_ratios": [ratios(t, w) for t, w in zip(wide[::2], wide[1::2], strict=True)],
        "environment": environment(),
    }


def ratios(tiles: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    return {
        "tokens": tiles["tokens"],
        "hidden": tiles["hidden"],
        "memory": round(tiles["gib"] / whole["gib"], 3),
        "time": round(tiles["seconds"] / whole["seconds"], 3),
    }


def extrapolate(measured: list[dict[str, Any]], tokens: int) -> dict[str, Any]:
    """Whole logits at `tokens`, see the module docstring."""
    slope, constant = np.polyfit([p["tokens"] for p in measured], [p["gib"] for p in measured], 1)
    return {
        "way": "whole",
        "tokens": tokens,
        "extrapolated": True,
        "gib": round(float(slope * tokens + constant), 3),
        "seconds": round(tokens * min(p["seconds"] / p["tokens"] for p in measured), 3),
    }


def draw(summary: dict[str, Any]) -> Figure:
    figure, axes = new_figure(3.4, cols=2)
    for ax, key, title, unit in zip(
        axes,
        ("gib", "seconds"),
        ("Peak memory above the inputs", "Forward and backward"),
        ("GiB", "CPU s"),
        strict=True,
    ):
        for way, color, name in (("tiles", BLUE, "tile by tile"), ("whole", VERMILLION, "whole logits")):
            points = summary["curves"][way]
            real = [p for p in points if not p.get("extrapolated")]
            ax.plot([p["tokens"] for p in real], [p[key] for p in real], color=color, marker="o", label=name)
            beyond = points[len(real) :]
            if beyond:
                start = real[-1] if key == "gib" else min(real, key=lambda p: p[key] / p["tokens"])
                line = [start, *beyond]
                ax.plot([p["tokens"] for p in line], [p[key] for p in line], color=color, ls=":", zorder=1)
                ax.plot(
                    [p["tokens"] for p in beyond], [p[key] for p in beyond], color=color, ls="", marker="o", mfc="w"
                )
        if any(p.get("extrapolated") for p in summary["curves"]["whole"]):
            ax.plot([], [], color=MUTED, ls=":", marker="o", mfc="w", label="extrapolated")
        dress(ax, title, f"tokens (V = {summary['vocabulary']:,}, H = {summary['hidden']}, float32)", unit)
        ax.set_ylim(0)
        legend(ax)
    return figure


if __name__ == "__main__":
    main()
