"""Runs of `rl train` on the countdown task, and what is read from a run: pace, time to a reward, the limit.

    python benchmarks/countdown_runs.py CONFIG

makes the rollouts of a config alone: its engine, graders and loop, with a learner that hands out the same weights at
once. Each such step is B groups and a push; its time and that of the learner alone set the limit of an asynchronous
run. The last line printed is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import countdown
import yaml
from countdown_start import SIZES

PROMPTS, GROUP = 8, 8
WARM_UP = 3
"""First steps that pace and limit leave out: kernels are picked and arenas grow then. Times to a reward count them."""
WINDOW = 6
"""Steps over which a reward is averaged before it counts as reached."""
VERIFIER = Path(__file__).with_name("countdown.py")


Row = dict[str, Any]
"""Of a step: `time_s` since the first began, `tokens` trained, `rewards` by quarter of the prompts."""


def settings_of(start: Path, name: str, out: Path, staleness: int, steps: int, seed: int) -> dict[str, Any]:
    """A config of `rl train`: one engine and one learner, a thread each."""
    return {
        "command": "train",
        "model": str(start / "model"),
        "out": str(out),
        "seed": seed,
        "steps": steps,
        "data": {"train": str(start / "prompts.jsonl"), "prompts": {"chat": "plain", "normal": ""}},
        "rollout": {
            "engine": {
                "dtype": "float32",
                "max_model_len": 320,
                "max_num_seqs": 256,
                "kv_cache_mb": 256,
                "enforce_eager": True,
                "images_per_prompt": 0,
            },
            "sampling": {"max_tokens": countdown.MAX_TOKENS},
        },
        "rewards": {"plugins": {"countdown": str(VERIFIER)}},
        "learner": {"fsdp": {"wrap": "root"}, "optimizer": {"lr": SIZES[name].lr, "weight_decay": 0.0}},
        "algo": {
            "prompts_per_step": PROMPTS,
            "group_size": GROUP,
            "max_staleness": staleness,
            "late_groups": "wait",  # dropped, the longest completions would hardly ever be learned from
            # As in TRL: rewards are normalised in their group alone, and groups without a difference stay.
            "advantages": {"batch_normalise": False},
            "filters": {"equal_rewards": "keep"},
        },
    }


def train(settings: dict[str, Any], overrides: list[str]) -> list[Row]:
    """One `rl train` in a process of its own; for each step the seconds since the first began, tokens, reward, ..."""
    from rl.metrics.files import read_metrics

    _call([sys.executable, "-m", "rl", "train", _write(settings), *overrides])
    return rows_of(read_metrics(Path(settings["out"])).rows)


def rows_of(metrics: Any) -> list[Row]:
    """A run's metrics under the names that this benchmark uses for both systems."""
    rows, time_s = [], 0.0
    for row in metrics:
        time_s += row["time/step_s"]
        rewards = {name: row[f"reward/{name}"] for name in countdown.STRATA if f"reward/{name}" in row}
        rows.append(
            {
                "time_s": time_s,
                "tokens": row["tokens/trained"],
                "rewards": rewards,
                "learner_s": row["time/learner_busy_s"],
                "engine_busy": row["time/rollout_busy_fraction"],
                "staleness": row["staleness/mean"],
            }
        )
    return rows


def rollouts_alone(settings: dict[str, Any], overrides: list[str]) -> list[Row]:
    """The same without a learner."""
    done = _call([sys.executable, __file__, _write(settings), *overrides])
    found: list[Row] = json.loads(done.splitlines()[-1])["rows"]
    return found


def pace(rows: list[Row]) -> dict[str, float]:
    """Seconds a step and trained tokens a second after the warm-up."""
    seconds = rows[-1]["time_s"] - rows[WARM_UP - 1]["time_s"]
    tokens = sum(row["tokens"] for row in rows[WARM_UP:])
    return {"seconds_per_step": seconds / (len(rows) - WARM_UP), "tokens_per_s": tokens / seconds}


def busy(rows: list[Row]) -> dict[str, float]:
    """Shares of the time after the warm-up in which the learner and the engine computed."""
    ends = [row["time_s"] for row in rows[WARM_UP - 1 :]]
    steps = [after - before for before, after in pairwise(ends)]
    steady = rows[WARM_UP:]
    return {
        "learner_busy": sum(row["learner_s"] for row in steady) / sum(steps),
        "engine_busy": sum(row["engine_busy"] * step for row, step in zip(steady, steps, strict=True)) / sum(steps),
    }


def reward_of(rows: list[Row]) -> float | None:
    """The mean over quarters of the prompts of each quarter's mean; None while a quarter has not come up."""
    quarters = [[row["rewards"][name] for row in rows if name in row["rewards"]] for name in countdown.STRATA]
    return statistics.mean(map(statistics.mean, quarters)) if all(quarters) else None


def time_to(rows: list[Row], reward: float) -> float | None:
    """Seconds from the beginning of the first step until the reward of the last `WINDOW` steps is at least `reward`."""
    for last in range(WINDOW, len(rows) + 1):
        found = reward_of(rows[last - WINDOW : last])
        if found is not None and found >= reward:
            return float(rows[last - 1]["time_s"])
    return None


def report(rows: list[Row], reward: float) -> dict[str, Any]:
    """What is printed of a run."""
    values = pace(rows) | {
        "seconds_to_reward": time_to(rows, reward),
        "reward_first": reward_of(rows[:WINDOW]),
        "reward_last": reward_of(rows[-WINDOW:]),
    }
    return {name: None if value is None else round(value, 4) for name, value in values.items()}


def limit(synchronous: list[Row], alone: list[Row]) -> dict[str, float]:
    """Tokens a second of each side alone, and of the slower one: what an asynchronous run can reach at most.

    Rates and not seconds a step, because a policy that learns writes longer completions than one that stands still.

    Args:
        synchronous: a run with S = 0, whose learner has the machine to itself.
        alone: from `rollouts_alone`.
    """
    steady = synchronous[WARM_UP:]
    learner = sum(row["tokens"] for row in steady) / sum(row["learner_s"] for row in steady)
    rollout = pace(alone)["tokens_per_s"]
    return {"learner": round(learner, 1), "rollout": round(rollout, 1), "limit": round(min(learner, rollout), 1)}


def _write(settings: dict[str, Any]) -> str:
    path = Path(settings["out"]).with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


class StillLearner:
    """A learner that is done at once: every version has the weights of the model's folder."""

    def __init__(self, config: Any, folder: str) -> None:
        from safetensors.torch import load_file

        from rl.sync.learner import WeightSync

        self.tensors = load_file(Path(config.model) / "model.safetensors")
        self.sync = WeightSync(config.sync, folder)
        self.version, self.cost = 0, None

    async def train(self, shares: Any, record: Any) -> Any:
        self.version += 1
        now = time.time()
        return {"time/train_start": now, "time/train_end": now}, self.sync.publish(self.tensors, self.version), None


async def generate_only(config: Any) -> list[Row]:
    """The loop over real engines and graders and a `StillLearner`."""
    from rl.cluster import RewardClient, RolloutPool
    from rl.data.store import OrderedPrompts
    from rl.ledger import Ledger
    from rl.loop import Loop
    from rl.metrics.tracker import Tracker
    from rl.nodes import bring_up, connect

    connect(config.ray_address, config.rollout)
    data = config.data
    rows: list[Row] = []
    pool = RolloutPool(config.rollout, config.model, data.prompts, [data.train], data.on_bad_row, config.sync)
    await bring_up({"rollout workers": pool.ready()})
    ids, _, answer_types = await pool.catalogue(data.train)
    rewards = RewardClient(config.rewards, answer_types)
    await bring_up({"reward workers": rewards.ready()})
    with tempfile.TemporaryDirectory() as out:
        tracker, learner = Tracker(Path(out)), StillLearner(config, out)
        parts = Rollouts(pool)
        prompts, ledger = OrderedPrompts(ids, seed=config.seed), Ledger(tracker.fate)
        loop = Loop(config, parts, rewards, learner, prompts, ledger, _recorder(rows))  # type: ignore[arg-type]
        await loop.run()
        tracker.close()
        learner.sync.close()
    await asyncio.gather(pool.close(), rewards.close())
    return rows


class Rollouts:
    """A pool whose probe always agrees: there is no learner to compare with."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.fleet, self.generate = pool, pool.fleet, pool.generate
        self.version = 0

    async def push(self, ticket: Any) -> Any:
        times = await self.pool.push(ticket)
        self.version = ticket.version
        return times

    async def each(self, method: str, *args: Any) -> Any:
        return {"rollout-0": (0.0, 0.0, self.version)} if method == "probe" else await self.pool.each(method, *args)


def _recorder(rows: list[Row]) -> Any:
    """A `RunIO` that keeps the steps' times and tokens."""
    clock = {"began": 0.0}

    def step(number: int, row: dict[str, Any], ledger: Any) -> None:
        tokens = row.get("response/length_mean", 0.0) * row.get("groups/finished", 0.0) * GROUP
        rows.append({"time_s": time.time() - clock["began"], "tokens": tokens})

    return SimpleNamespace(
        start_clock=lambda: clock.update(began=time.time()),
        timeline=lambda *args: None,
        rollout_activity=lambda busy, step: {},
        changes=lambda fleets, step: {},
        lost=lambda count: None,
        record=lambda step: None,
        waiting=lambda *args: None,
        step=step,
    )


def main() -> None:
    from rl.config.base import apply_overrides, parse_config
    from rl.config.train import TrainConfig

    raw = apply_overrides(yaml.safe_load(Path(sys.argv[1]).read_text()), sys.argv[2:])
    config = parse_config(TrainConfig, raw)
    print(json.dumps({"rows": asyncio.run(generate_only(config))}))


if __name__ == "__main__":
    main()
