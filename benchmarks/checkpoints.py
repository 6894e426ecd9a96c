"""What checkpoints cost a run: none, one after every second step written in the background, and the same waited for.

The same steps of `rl train` on the countdown task; engine and learner with a thread each, and the files go to the disk
of `--out`. A checkpoint holds parameters, optimizer and what the driver has in hand; `snapshot_s` is what of it a step
waits for.

    python benchmarks/checkpoints.py [--size 20M] [--steps 12] [--out runs/countdown]

The last line printed is JSON.
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

from rl.checkpoint_folder import complete_checkpoints
from rl.metrics.environment import environment

ARMS = {
    "none": ["checkpoint.every=null"],
    "background": ["checkpoint.every=2", "checkpoint.background=true"],
    "waited for": ["checkpoint.every=2", "checkpoint.background=false"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="20M", choices=list(SIZES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--staleness", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/countdown"))
    args = parser.parse_args()
    folder = start(args.out, args.size)
    found = {}
    for arm in ARMS:
        found[arm] = one_run(args, folder, arm)
        print(arm, json.dumps(found[arm]), flush=True)
    result = {"benchmark": "checkpoints", "size": args.size, "steps": args.steps, "arms": found}
    print(json.dumps(result | {"environment": environment()}))


def one_run(args: argparse.Namespace, folder: Path, arm: str) -> dict[str, Any]:
    """Seconds a step; of checkpoints their number, their size, and what of each the learner was kept from training."""
    out = folder / "runs" / f"checkpoints-{arm.replace(' ', '-')}"
    shutil.rmtree(out, ignore_errors=True)
    settings = runs.settings_of(folder, args.size, out, args.staleness, args.steps, seed=0)
    rows = runs.train(settings, ARMS[arm])
    timeline = map(json.loads, (out / "timeline.jsonl").read_text().splitlines())
    # The last is written after the last step, in every arm.
    kept = [row["end"] - row["start"] for row in timeline if row["phase"] == "checkpoint"][:-1]
    last = complete_checkpoints(out)[-1]
    size = sum(file.stat().st_size for file in last.rglob("*") if file.is_file())
    return {
        "seconds_per_step": round(runs.pace(rows)["seconds_per_step"], 3),
        "learner_s": round(statistics.mean(row["learner_s"] for row in rows[runs.WARM_UP :]), 3),
        "checkpoints": len(kept),
        "snapshot_s": round(statistics.mean(kept), 3) if kept else None,
        "megabytes": round(size / 1e6, 1),
    }


if __name__ == "__main__":
    main()
