"""`rl curate`: attempts of one policy at the candidates, and the RL set that the discrepancy rule selects from them."""

from __future__ import annotations

from pathlib import Path

from rl.config.base import save_config
from rl.config.curate import CurateConfig
from rl.curate import profile, selection
from rl.data.catalogue import read_catalogue
from rl.data.containers import answer_types
from rl.models.context import context_problems
from rl.reward_setup import problems


def check(config: CurateConfig) -> list[str]:
    """Problems that would stop `run`, for --dry-run."""
    wanted = {"model": config.model, "candidates": config.candidates}
    found = [f"{key} {value} does not exist" for key, value in wanted.items() if not Path(value).exists()]
    found += context_problems(config.model, config.rollout.engine.max_model_len)
    return found + problems(config.rewards, answer_types((config.candidates,)))


def run(config: CurateConfig) -> Path:
    """`rl curate profile`, then `rl curate select`; returns the path of the RL set.

    Raises:
        DataError: the rule keeps nothing; the message counts the reasons.
    """
    # Before the attempts, which a wrong name would otherwise cost.
    selection.check_bands(config.select, read_catalogue(config.candidates, on_bad=config.on_bad_row))
    save_config(config, Path(config.out) / "config.yaml")
    profile.run(config.profile())
    target = selection.run(config.selection())
    assert target is not None
    return target
