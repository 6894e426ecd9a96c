"""Keys and values across a weight swap: computed again (the default) or kept (`sync.kv_cache: keep`).

The same runs of `rl train` on the countdown task, whose longest completions see several swaps. `drift` is the mean
|learner - behaviour| in nats a token, before and after a completion's first swap, against the policy at the start of
the step that trains it: the age of the version that sampled the token is in both, and after a swap with kept keys also
what those of older weights do to it. Means over the steps after the warm-up, and over seeds.

    python benchmarks/kv_cache.py [--size 0.6M] [--steps 60] [--staleness 2] [--seeds 0 1 2] [--out runs/countdown]

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path

import countdown_runs as runs
from countdown_start import SIZES, start

from rl.metrics.environment import environment
from rl.metrics.files import read_metrics

METRICS = {
    "drift_before_swap": "drift/before_swap",
    "drift_after_swap": "drift/after_swap",
    "pause_s": "sync/pause_s",
    "staleness": "staleness/mean",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="0.6M", choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--staleness", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/countdown"))
    args = parser.parse_args()
    folder = start(args.out, args.size)
    arms = {}
    for arm in ("recompute", "keep"):
        seeds = [one_run(args, folder, arm, seed) for seed in args.seeds]
        means = {name: round(statistics.mean(seed[name] for seed in seeds), 6) for name in seeds[0]}
        arms[arm] = {"mean": means, "seeds": seeds}
        print(arm, json.dumps(means), flush=True)
    result = {
        "benchmark": "kv_cache",
        "size": args.size,
        "steps": args.steps,
        "staleness": args.staleness,
        "arms": arms,
    }
    print(json.dumps(result | {"environment": environment()}))


def one_run(args: argparse.Namespace, folder: Path, arm: str, seed: int) -> dict[str, float]:
    """Means over the steps of one run, its pace, and the reward of its last steps."""
    out = folder / "runs" / f"kv-{arm}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    settings = runs.settings_of(folder, args.size, out, args.staleness, args.steps, seed)
    rows = runs.train(settings, [f"sync.kv_cache={arm}"])
    found = {
        "seconds_per_step": runs.pace(rows)["seconds_per_step"],
        "reward_last": runs.reward_of(rows[-runs.WINDOW :]) or 0.0,
    }
    metrics = read_metrics(out).rows[runs.WARM_UP :]
    for name, metric in METRICS.items():
        found[name] = statistics.mean(row[metric] for row in metrics if row.get(metric) is not None)
    return {name: round(value, 6) for name, value in found.items()}


if __name__ == "__main__":
    main()
