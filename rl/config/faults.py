"""Configs of how processes that die or hang are noticed."""

from __future__ import annotations

from pydantic import Field

from rl.config.base import StrictModel


class PingConfig(StrictModel):
    """How a process that hangs is noticed."""

    ping_every_s: float = Field(5.0, gt=0)
    """How often each is asked whether it lives. A death is noticed at once where a call is under way."""
    hang_s: float = Field(300.0, gt=0)
    """One that does not answer for this long is taken for lost: a worker is killed and replaced, a learner rank ends
    the run, which goes on from its last checkpoint. For workers set it well above the longest engine step, compilation
    included, and the longest weight swap."""


class FaultConfig(PingConfig):
    """How workers that die or hang are noticed and replaced."""

    start_s: float = Field(900.0, gt=0)
    """How long a worker that replaces another, or is added, may take until it is ready, from when Ray has made its
    process; and again as long until it has the current weights. Set it well above the longest start: imports, loading,
    compilation, with SGLang its `start_s` too. One that hangs meanwhile counts as a death. While another serves, the
    process itself is waited for without a limit: a node may have to join. Where no worker of the pool has had one for
    this long, the run ends."""
    restarts: int = Field(3, ge=0)
    """Deaths of a worker in a row, without a finished request in between, after which it is given up. The run ends when
    all are."""
