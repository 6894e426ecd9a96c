"""Where a run's metrics go besides the JSONL files, which are always written."""

from __future__ import annotations

import importlib.util
from typing import Literal

from rl.config.base import StrictModel


class WandbConfig(StrictModel):
    """Weights & Biases. `offline` writes under the run folder and needs no account; `wandb sync` uploads it later."""

    project: str = "innovator-rl"
    """Project that the run appears in."""
    entity: str | None = None
    """Team or user; None takes the account's default."""
    name: str | None = None
    """Shown name of the run; None takes the name of the run folder."""
    group: str | None = None
    """Runs of one experiment, shown together."""
    tags: tuple[str, ...] = ()
    """Shown with the run."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """`online` needs an account and a connection."""


class TrackerConfig(StrictModel):
    """Trackers besides JSONL."""

    tensorboard: bool = False
    """Write event files to `{run}/tensorboard`."""
    wandb: WandbConfig | None = None
    """None switches Weights & Biases off."""

    def problems(self) -> list[str]:
        """The trackers that are switched on and not installed here, for --dry-run."""
        wanted = {"tensorboard": self.tensorboard, "wandb": self.wandb is not None}
        return [
            f'tracker.{name} is on, and {name} is not installed: pip install "innovator-rl[{name}]", or switch it off'
            for name, on in wanted.items()
            if on and importlib.util.find_spec(name) is None
        ]
