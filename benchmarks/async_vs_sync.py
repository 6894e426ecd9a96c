"""What the staleness bound buys: time to a reward and tokens trained per second at S = 0, 1, 2, 4.

The same steps of `rl train` on the countdown task, whose completions are long-tailed in length, at three sizes; an
engine and a learner with a thread each. The limit is the rate of the slower side alone: the learner's in the
synchronous run, where it has the machine to itself, and the rollouts' without a learner. How long either side computes
tells what is short of the limit because it waits from what is because the two share a machine.

    python benchmarks/async_vs_sync.py [--sizes 0.6M 5M 20M] [--steps 40 30 16] [--bounds 0 1 2 4] [--rounds 1]

Seconds count from the first step on. The policies are made once and kept in `--out`. Further arguments are settings of
`rl train`. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import countdown_runs as runs
from countdown_start import SIZES, start
from vs_trl import REWARD, STEPS, say

from rl.metrics.environment import environment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--steps", type=int, nargs="+", help="of each size")
    parser.add_argument("--bounds", type=int, nargs="+", default=[0, 1, 2, 4], help="S; 0 must be among them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--reward", type=float, default=REWARD)
    parser.add_argument("--out", type=Path, default=Path("runs/countdown"))
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="of `rl train`")
    args = parser.parse_args()
    if 0 not in args.bounds:
        parser.error("--bounds has no 0: the synchronous run is what the others are compared with")
    steps = dict(zip(args.sizes, args.steps, strict=True)) if args.steps else STEPS
    sizes = {}
    for name in args.sizes:
        folder = start(args.out, name)
        rounds = [one_round(args, folder, name, steps[name], number) for number in range(args.rounds)]
        sizes[name] = summarise(rounds, args.bounds, args.reward)
        print(json.dumps({name: sizes[name]}), flush=True)
    result = {"benchmark": "async_vs_sync", "settings": args.settings, "reward": args.reward, "sizes": sizes}
    print(json.dumps(result | {"environment": environment()}))


def one_round(args: argparse.Namespace, folder: Path, name: str, steps: int, number: int) -> dict[Any, Any]:
    """Rows by S, and of the rollouts alone at the widest bound under `alone`."""
    found: dict[Any, Any] = {}
    for bound in args.bounds:
        out = folder / "runs" / f"{number}-{bound}"
        shutil.rmtree(out, ignore_errors=True)
        found[bound] = runs.train(runs.settings_of(folder, name, out, bound, steps, seed=number), args.settings)
        say(name, f"S={bound}", found[bound])
    settings = runs.settings_of(folder, name, folder / "runs" / "alone", max(args.bounds), steps, seed=number)
    found["alone"] = runs.rollouts_alone(settings, args.settings)
    say(name, "rollouts alone", found["alone"])
    return found


def summarise(rounds: list[dict[Any, Any]], bounds: list[int], reward: float) -> dict[str, Any]:
    """By S: medians over rounds of pace, seconds to the reward, staleness, and rates over S = 0 and over the limit."""
    limits = [runs.limit(found[0], found["alone"]) for found in rounds]
    rows = {}
    for bound in bounds:
        reports = [runs.report(found[bound], reward) for found in rounds]
        sides = [runs.busy(found[bound]) for found in rounds]
        rates = [report["tokens_per_s"] for report in reports]
        base = [runs.pace(found[0])["tokens_per_s"] for found in rounds]
        reached = [report["seconds_to_reward"] for report in reports if report["seconds_to_reward"] is not None]
        rows[f"S={bound}"] = {
            "seconds_per_step": _median(report["seconds_per_step"] for report in reports),
            "tokens_per_s": _median(rates),
            "seconds_to_reward": _median(reached) if len(reached) == len(reports) else None,
            "reward_last": _median(report["reward_last"] for report in reports),
            "staleness_mean": _median(row["staleness"] for found in rounds for row in found[bound][runs.WARM_UP :]),
            "of_synchronous": _median(rate / one for rate, one in zip(rates, base, strict=True)),
            "share_of_limit": _median(rate / one["limit"] for rate, one in zip(rates, limits, strict=True)),
            **{side: _median(one[side] for one in sides) for side in sides[0]},
        }
    return {"limit_tokens_per_s": {key: _median(one[key] for one in limits) for key in limits[0]}, "bounds": rows}


def _median(values: Any) -> float:
    return round(statistics.median(values), 4)


if __name__ == "__main__":
    main()
