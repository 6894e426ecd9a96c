"""`rl replay`: a recorded step once more, on the learner alone, compared with what the run made of it bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.config.base import parse_config, read_yaml
from rl.config.train import TrainConfig
from rl.errors import ConfigError, DataError
from rl.failures import remote_causes
from rl.interruptible import run_interruptible
from rl.learner_group import LearnerGroup
from rl.metrics.files import CONFIG
from rl.nodes import bring_up, connect
from rl.recording import CLOCKS, read_outcome, step_folder
from rl.watch import waiting, watching

WEIGHTS = "weights"
"""The row that compares the digests of the weights after the step."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One number, or the weights' digest, as the run had it and as the replay has it; None: it is not there."""

    name: str
    recorded: float | str | None
    replayed: float | str | None

    @property
    def same(self) -> bool:
        """To the last bit; two numbers that are not finite in the same way are the same, too."""
        return repr(self.recorded) == repr(self.replayed)


def replay(run: Path, step: int) -> list[Difference]:
    """Replay a step of the run in folder `run`: one row for each metric, then one for the weights.

    Raises:
        ConfigError: `run` holds no run.
        DataError: the step was not recorded, or its record is torn.
    """
    if not (run / CONFIG).is_file():
        raise ConfigError(f"{run} holds no run: {run / CONFIG} is missing; give the `out` of a run")
    outcome, folder = read_outcome(run, step), step_folder(run, step).absolute()
    config = _recorded_config(folder / CONFIG)
    connect(config.ray_address, learner=config.learner)
    metrics, digest = run_interruptible(_replay(config, folder))
    return compare(outcome["metrics"], metrics, outcome["weights"], digest)


def compare(
    recorded: Mapping[str, float], replayed: Mapping[str, float], weights: str, digest: str
) -> list[Difference]:
    """The metrics of both but for those of clocks, and the weights."""
    names = [name for name in dict.fromkeys((*recorded, *replayed)) if not name.startswith(CLOCKS)]
    rows = [Difference(name, recorded.get(name), replayed.get(name)) for name in sorted(names)]
    return [*rows, Difference(WEIGHTS, weights, digest)]


def _recorded_config(file: Path) -> TrainConfig:
    """The settings that the step was made with: those of the run may be other ones since it was resumed."""
    if not file.is_file():
        raise DataError(
            f"{file} is missing: records of older versions don't hold the run's settings, without which the step may "
            "come out otherwise; put the run's config.yaml as it was at that step there"
        )
    return parse_config(TrainConfig, read_yaml(file), where=str(file))


async def _replay(config: TrainConfig, folder: Path) -> tuple[dict[str, Any], str]:
    learner = LearnerGroup(config)
    try:
        async with watching():
            with remote_causes():
                await bring_up({"learner": learner.start()})
                with waiting("train", folder.name):
                    return await learner.replay(str(folder))
    finally:
        await asyncio.shield(learner.close())
