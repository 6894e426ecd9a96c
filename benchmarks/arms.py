"""Runs of `rl train` that differ in a few settings, over several seeds, and what they come to.

For the benchmarks that compare learning: each has arms (what differs), all started, seed by seed, from the same SFT
policy and RL data. Finished runs are used again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.metrics import files
from rl.metrics.environment import environment
from rl.metrics.style import CYCLE, dress, legend, new_figure, png_bytes, smooth, window

EVALUATION = "evaluation"
"""Stands for mean@k of the evaluations among the metrics to draw."""
Settings = Callable[[str, Path], Sequence[str]]
"""From an arm and a seed's pipeline folder to its overrides."""


def arguments(doc: str | None, name: str, steps: int) -> argparse.Namespace:
    """The command line of a benchmark of arms; the pipelines it starts from are there when this returns."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--pipelines", type=Path, default=Path("runs/seeds"))
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--add", type=Path, help="an earlier result, of other seeds, that counts too")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    if args.add and args.figure:
        parser.error("--figure draws the runs of all seeds, and the result of --add holds none; leave one of them out")
    args.earlier = _earlier(name, args.add, args.seeds) if args.add else []
    prepare(args.pipelines, args.seeds)
    return args


def compare(
    name: str,
    args: argparse.Namespace,
    labels: Mapping[str, str],
    settings: Settings,
    curves: Mapping[str, str],
    title: str,
    **more: Any,
) -> None:
    """Run the arms, draw the figure that `args` asks for, and print the result, with `more` in it, as JSON."""
    run(labels, args, settings)
    found = result(name, list(labels), args.out, args.seeds, args.earlier) | more
    if args.figure:
        of = ", ".join(map(str, args.seeds))
        title += f", seeds {of}: mean and range" if len(args.seeds) > 1 else f", seed {of}"
        args.figure.write_bytes(png_bytes(draw(curves, labels, args.out, args.seeds, found, title)))
    print(json.dumps(found))


def prepare(pipelines: Path, seeds: Sequence[int]) -> None:
    """The quickstart up to its RL set, in `pipelines/SEED`, where it is not there yet."""
    for seed in seeds:
        folder = pipelines / str(seed)
        if not (folder / files.CURATE_FOLDER / "rl_set.parquet").exists():
            call(
                "pipeline",
                "configs/quickstart/pipeline.yaml",
                *("--seed", str(seed), "--out", str(folder), "--until", "curate"),
            )


def run(arms: Iterable[str], args: argparse.Namespace, settings: Settings) -> None:
    """Every arm of a seed before the next seed, so that what is cut off is whole seeds."""
    for seed in args.seeds:
        for arm in arms:
            folder, pipeline = args.out / f"{arm}-{seed}", args.pipelines / str(seed)
            if (folder / files.SUMMARY).exists():
                continue
            common = (
                f"model={pipeline / 'sft-3-instruct'}",
                f"out={folder}",
                f"seed={seed}",
                f"data.train={pipeline / files.CURATE_FOLDER / 'rl_set.parquet'}",
                f"data.eval={pipeline / 'data' / 'eval.parquet'}",
                "checkpoint.every=null",
                "tracker.tensorboard=false",
            )
            chosen = (f"steps={args.steps}", *settings(arm, pipeline), *args.overrides)
            call("train", "configs/quickstart/rl.yaml", *common, *chosen)


def call(*arguments: str) -> None:
    """`rl ...` in a process of its own; its output goes to ours."""
    done = subprocess.run([sys.executable, "-m", "rl", *arguments], env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"rl {' '.join(arguments)} ended with exit code {done.returncode}")


def _earlier(name: str, file: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The rows of an earlier result; ends the program, before hours of runs, where they can't stand beside `seeds`."""
    found = json.loads(file.read_text())
    if found["benchmark"] != name:
        sys.exit(f"{file} is a result of {found['benchmark']}, not of {name}")
    twice = {row["seed"] for row in found["rows"]} & set(seeds)
    if twice:
        sys.exit(f"seeds {sorted(twice)} are in {file} already; leave them out of --seeds")
    return [{"date": found["environment"]["date"]} | row for row in found["rows"]]


def result(
    name: str, arms: Sequence[str], out: Path, seeds: Sequence[int], earlier: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """mean@8 in points before and after, by arm and seed; and by arm the mean and the standard error over seeds.

    Args:
        earlier: rows of other seeds, from an earlier result.
    """
    rows = []
    for arm in arms:
        new = [row_of(arm, seed, out / f"{arm}-{seed}") for seed in seeds]
        rows += sorted([*(row for row in earlier if row["arm"] == arm), *new], key=lambda row: row["seed"])
    gains = {arm: [row["gain"] for row in rows if row["arm"] == arm] for arm in arms}
    return {
        "benchmark": name,
        "rows": rows,
        "gain_mean": {arm: round(statistics.mean(values), 1) for arm, values in gains.items()},
        "gain_standard_error": {arm: _standard_error(values) for arm, values in gains.items()},
        "paired_difference": {f"{arms[0]} - {arm}": paired(gains[arms[0]], gains[arm]) for arm in arms[1:]},
        "environment": environment(),
    }


def paired(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Mean difference over seeds and its standard error, in points."""
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return {"mean": round(statistics.mean(differences), 1), "standard_error": _standard_error(differences)}


def row_of(arm: str, seed: int, folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / files.SUMMARY).read_text())
    before, after = summary["before"], summary["after"]
    return {
        "arm": arm,
        "seed": seed,
        "before": round(100 * before["mean_at_8"], 1),
        "after": round(100 * after["mean_at_8"], 1),
        "gain": round(100 * (after["mean_at_8"] - before["mean_at_8"]), 1),
        "pass_at_8": [round(100 * scores["pass_at_8"], 1) for scores in (before, after)],
        "tasks": {
            task: round(100 * (scores["mean_at_8"] - before["tasks"][task]["mean_at_8"]), 1)
            for task, scores in after["tasks"].items()
        },
        "fates": summary["fates"],
        "max_probe_logprob_delta": summary["max_probe_logprob_delta"],
        "wall_seconds": round(summary["wall_seconds"]),
    }


def draw(
    curves: Mapping[str, str],
    labels: Mapping[str, str],
    out: Path,
    seeds: Sequence[int],
    bars: Mapping[str, Any],
    title: str,
) -> Any:
    """Left: a metric over steps, mean over seeds and their range. Right: points gained in evaluation, each seed a dot.

    Args:
        curves: metric -> its axis label; one panel each.
        labels: arm -> its name in the legend.
        bars: what `result` returned.
    """
    figure, axes = new_figure(3.6, 1, len(curves) + 1, width_ratios=[*(3 for _ in curves), 1.6])
    for ax, (metric, label) in zip(axes, curves.items(), strict=False):
        for color, arm in zip(CYCLE, labels, strict=False):
            runs = [_series(out / f"{arm}-{seed}", metric) for seed in seeds]
            steps = sorted(set.intersection(*map(set, runs)))
            values = [[run[step] for run in runs] for step in steps]
            ax.fill_between(steps, [*map(min, values)], [*map(max, values)], color=color, alpha=0.15, linewidth=0)
            ax.plot(steps, [*map(statistics.mean, values)], color=color, linewidth=1.8, label=labels[arm])
        dress(ax, label, "step")
    legend(axes[0])
    for x, (color, arm) in enumerate(zip(CYCLE, labels, strict=False)):
        gains = [row["gain"] for row in bars["rows"] if row["arm"] == arm]
        axes[-1].bar(x, statistics.mean(gains), color=color, alpha=0.35, width=0.6)
        axes[-1].plot([x] * len(gains), gains, "o", color=color, markersize=4)
    axes[-1].set_xticks(range(len(labels)), list(labels.values()), rotation=20, ha="right")
    axes[-1].axhline(0, color="#666666", linewidth=0.8)
    dress(axes[-1], "evaluation", "", "points of mean@8 gained")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _series(run: Path, metric: str) -> dict[int, float]:
    """Step -> value; training's metrics smoothed."""
    if metric == EVALUATION:
        return {found.step: found.mean for found in files.read_evals(run) if found.mean is not None}
    steps, values = files.column(files.read_metrics(run).rows, metric)
    return dict(zip(steps, smooth(values, window(len(values))), strict=True))


def _standard_error(values: Sequence[float]) -> float | None:
    return round(statistics.stdev(values) / len(values) ** 0.5, 1) if len(values) > 1 else None
