"""Does a run whose workers are killed and hung learn what an undisturbed one learns?

Pairs of `rl train` on the countdown task with the same settings and seed, one left alone. In the other the rollout
worker and the grader are killed (SIGKILL) and hung (SIGSTOP), each once, at steps spread over the run; each time groups
are issued again, and the worker comes back with the current weights. Steps may differ in their groups from the first
fault on, so the two end with different policies: the question is whether by more than two seeds differ.

    python benchmarks/faults.py [--size 0.6M] [--steps 60] [--seeds 0 1 2]

The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import countdown_runs as runs
import psutil
import yaml
from countdown_start import SIZES, start

from rl.metrics.environment import environment
from rl.metrics.files import read_metrics

KINDS = tuple(
    (victim, sent)
    for victim in ("ray::RolloutWorker", "ray::RewardWorker")
    for sent in (signal.SIGKILL, signal.SIGSTOP)
)
LIMITS = {"ping_every_s": 0.5, "hang_s": 10}
LAST = 12
"""Steps at the end whose reward is compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="0.6M", choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--staleness", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/countdown"))
    args = parser.parse_args()
    folder = start(args.out, args.size)
    pairs = []
    for seed in args.seeds:
        pair = {arm: one_run(args, folder, seed, arm) for arm in ("undisturbed", "faults")}
        pairs.append({"seed": seed, **pair})
        print(json.dumps(pairs[-1]), flush=True)
    result = {"benchmark": "faults", "size": args.size, "steps": args.steps, "pairs": pairs, **summary(pairs)}
    print(json.dumps(result | {"environment": environment()}))


def summary(pairs: list[dict[str, Any]]) -> dict[str, float]:
    """Mean reward of each arm, and by how much the seeds of the undisturbed arm differ (standard deviation)."""
    rewards = {arm: [pair[arm]["reward"] for pair in pairs] for arm in ("undisturbed", "faults")}
    means = {arm: round(statistics.mean(values), 4) for arm, values in rewards.items()}
    spread = statistics.stdev(rewards["undisturbed"]) if len(pairs) > 1 else float("nan")
    return means | {"spread": round(spread, 4)}


def one_run(args: argparse.Namespace, folder: Path, seed: int, arm: str) -> dict[str, Any]:
    """Reward over the last steps, workers that were replaced, and the prompts' fates."""
    out = folder / "runs" / f"faults-{seed}-{arm}"
    shutil.rmtree(out, ignore_errors=True)
    settings = runs.settings_of(folder, args.size, out, args.staleness, args.steps, seed)
    for section in ("rollout", "rewards"):
        settings[section]["faults"] = LIMITS
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings))
    log = out.with_suffix(".log")
    with log.open("w") as stream:
        run = subprocess.Popen(
            [sys.executable, "-m", "rl", "train", str(config)],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        injected: list[str] = []
        if arm == "faults":
            threading.Thread(target=inject, args=(run, out, args.steps, seed, injected), daemon=True).start()
        if run.wait():
            sys.exit(f"the run of {config} ended with {run.returncode}:\n{log.read_text()[-4000:]}")
    metrics = read_metrics(out).rows
    return {
        "reward": round(runs.reward_of(runs.rows_of(metrics)[-LAST:]) or 0.0, 4),
        "injected": injected,
        "replaced": metrics[-1].get("faults/replaced", 0.0),
        "fates": json.loads((out / "summary.json").read_text())["fates"],
    }


def inject(run: subprocess.Popen[bytes], out: Path, steps: int, seed: int, injected: list[str]) -> None:
    """A fault of each kind, in the seed's order, at a step of its own share of the run."""
    rng = random.Random(seed)
    share = (steps - LAST) // len(KINDS)
    for number, (victim, sent) in enumerate(rng.sample(KINDS, len(KINDS))):
        due = number * share + rng.randrange(2, share)
        while steps_made(out) < due:
            try:
                run.wait(0.1)
                return
            except subprocess.TimeoutExpired:
                pass
        for process in psutil.Process(run.pid).children(recursive=True):
            if victim in " ".join(process.cmdline()):
                process.send_signal(sent)
                injected.append(f"step {due}: {sent.name} to {victim}")
                break


def steps_made(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


if __name__ == "__main__":
    main()
