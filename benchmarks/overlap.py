"""How much of the learner's and the engine's work does asynchrony overlap?

Runs the same number of `rl train` steps with S = 0 and with S = 2, in turns, on the same model, prompts and seeds, and
compares seconds per step after warm-up. On two cores, one for each side, the limit is
(rollout + learner) / max(rollout, learner), at most 2. The learning rate is so small that the policy, and with it the
completion lengths, stays as it is.

    python benchmarks/overlap.py runs/quickstart [--steps 30] [--rounds 2] [key=value ...]

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rl.metrics.environment import environment
from rl.metrics.files import read_metrics

WARMUP = 5
"""Steps left out at the start of a run: first compilations, first images."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path, help="a finished quickstart folder: its SFT model and RL set are used")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--staleness", type=int, default=2)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    seconds: dict[int, list[float]] = {0: [], args.staleness: []}
    rows: dict[int, list[dict[str, Any]]] = {0: [], args.staleness: []}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(args.rounds):
            for bound in seconds:
                out = Path(scratch) / f"{turn}-{bound}"
                train(args, bound, out)
                steady = [dict(row) for row in read_metrics(out).rows if row["step"] > WARMUP]
                seconds[bound].append(statistics.mean(row["time/step_s"] for row in steady))
                rows[bound] += steady
                print(f"round {turn} S={bound}: {seconds[bound][-1]:.3f} s a step", flush=True)
    print(json.dumps(result(args, seconds, rows)))


def train(args: argparse.Namespace, bound: int, out: Path) -> None:
    """One `rl train` in a process of its own."""
    settings = [
        f"out={out}",
        f"model={args.pipeline / 'sft-3-instruct'}",
        f"data.train={args.pipeline / 'curate' / 'rl_set.parquet'}",
        "data.eval=null",
        f"steps={args.steps}",
        f"algo.max_staleness={bound}",
        "learner.optimizer.lr=1e-9",
        *args.overrides,
    ]
    command = [sys.executable, "-m", "rl", "train", "configs/quickstart/rl.yaml", *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"rl train failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def result(
    args: argparse.Namespace, seconds: dict[int, list[float]], rows: dict[int, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Ratio of the medians, each side's cost and busy share, and the limit they set."""
    sync, asynchronous = 0, args.staleness
    step = {bound: statistics.median(values) for bound, values in seconds.items()}
    mean = {bound: lambda key, b=bound: statistics.mean(row[key] for row in rows[b]) for bound in rows}
    learner, rollout = mean[sync]("time/learner_busy_s"), mean[sync]("time/rollout_busy_fraction") * step[sync]
    return {
        "benchmark": "overlap",
        "steps": args.steps,
        "rounds": args.rounds,
        "overrides": args.overrides,
        "seconds_per_step": {f"S={bound}": round(value, 4) for bound, value in step.items()},
        "ratio": round(step[sync] / step[asynchronous], 3),
        "limit": round((learner + rollout) / max(learner, rollout), 3),
        "alone_s": {"learner": round(learner, 4), "rollout": round(rollout, 4)},
        "busy_share": {
            f"S={bound}": {
                "learner": round(mean[bound]("time/learner_busy_s") / step[bound], 3),
                "rollout": round(mean[bound]("time/rollout_busy_fraction"), 3),
            }
            for bound in rows
        },
        "bound_by": "learner" if learner > rollout else "rollout",
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
