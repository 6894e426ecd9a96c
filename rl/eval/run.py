"""`rl eval`: one model on one dataset, with the engines and rewards that training uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rl.cluster import connect, scoring_actors
from rl.config.base import save_config
from rl.config.eval import EvalConfig
from rl.data.containers import answer_types
from rl.eval.runner import evaluate
from rl.interruptible import run_interruptible
from rl.metrics.tracker import Tracker
from rl.reward_setup import problems


def check(config: EvalConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "data": config.data}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if not Path(value).exists()]
    return found + problems(config.rewards, answer_types((config.data,)))


def run(config: EvalConfig) -> Path:
    """Evaluate and print the table; returns the JSON file."""
    save_config(config, Path(config.out) / "config.yaml")
    connect(config.ray_address, config.rollout)
    result = run_interruptible(_evaluate(config))
    with Tracker(Path(config.out)) as tracker:
        path = tracker.eval(result)
    _print(result)
    return path


async def _evaluate(config: EvalConfig) -> dict[str, Any]:
    actors = scoring_actors(
        config.rollout, config.rewards, config.model, config.prompts, config.data, config.on_bad_row
    )
    async with actors as (pool, rewards, ids):
        return await evaluate(
            pool,
            rewards,
            config.data,
            ids,
            k=config.k,
            sampling=config.rollout.sampling,
            seed=config.seed,
            step=0,
            example_count=config.examples,
        )


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    k = result["k"]
    table = Table("task", "samples", f"mean@{k}", f"Pass@{k}", "length")
    for source, row in result["tasks"].items():
        scores = (f"{100 * row[name]:.1f}" for name in (f"mean_at_{k}", f"pass_at_{k}"))
        table.add_row(source, str(row["count"]), *scores, f"{row['length_mean']:.1f}")
    table.add_row("all", "", f"{100 * result[f'mean_at_{k}']:.1f}", f"{100 * result[f'pass_at_{k}']:.1f}", "")
    Console().print(table)
