"""From the stored attempts of a profile to the order in which a run asks for its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rl.config.curriculum import GaussianConfig, PoolsConfig
from rl.config.train import TrainConfig
from rl.curate.gather import gather
from rl.curate.pick import group_codes
from rl.data.catalogue import read_catalogue
from rl.data.curriculum import Curriculum, PoolCurriculum, Profiled
from rl.data.gaussian import GaussianCurriculum
from rl.data.store import OrderedPrompts, PromptSource
from rl.errors import DataError
from rl.records import RIGHT


def prompt_source(config: TrainConfig, ids: Sequence[str]) -> PromptSource:
    """The order of a run over these prompts.

    Raises:
        DataError: attempts that can't be read or that leave prompts without a pass rate; a domain without prompts.
    """
    curriculum = config.data.curriculum
    if curriculum is None:
        return OrderedPrompts(ids, config.seed)
    prompts = profiled(config.data.train, curriculum, ids, config.data.on_bad_row)
    made: Curriculum
    if isinstance(curriculum, PoolsConfig):
        made = PoolCurriculum(curriculum, prompts, config.seed, config.steps)
    else:
        made = GaussianCurriculum(curriculum, prompts, config.seed, config.steps, config.algo.prompts_per_step)
    return made


def profiled(dataset: str, config: PoolsConfig | GaussianConfig, ids: Sequence[str], on_bad: str) -> Profiled:
    """Attempts at each prompt, and the domains that they belong to; see `prompt_source` for what is raised."""
    index = {name: row for row, name in enumerate(ids)}
    gathered = gather([Path(folder) for folder in config.attempts], index)
    rewards = gathered.rewards[gathered.of(config.policy)]
    valid = np.count_nonzero(~np.isnan(rewards), axis=1).astype(np.float64)
    right = np.count_nonzero(rewards >= RIGHT, axis=1).astype(np.float64)
    missing = np.flatnonzero(valid == 0)
    if len(missing) and config.unprofiled is None:
        raise DataError(
            f"{len(missing)} of {len(ids)} prompts of {dataset} have no attempt with a reward in "
            f"{', '.join(config.attempts)}, such as {ids[missing[0]]!r}; profile them, or set "
            "data.curriculum.unprofiled to the pass rate that they are taken to have"
        )
    plain = Profiled(tuple(ids), right, valid, np.zeros(len(ids), dtype=np.int64))
    if not isinstance(config, GaussianConfig) or config.domains is None:
        return plain
    catalogue = read_catalogue(dataset, on_bad="skip" if on_bad == "skip" else "raise")
    names, codes = group_codes(getattr(catalogue, config.domains.by), config.domains)
    rows = catalogue.index()
    domain = np.array([codes[rows[name]] for name in ids], dtype=np.int64)
    shares = tuple(config.domains.shares[name] for name in names)
    return Profiled(tuple(ids), right, valid, domain, tuple(names), shares)
