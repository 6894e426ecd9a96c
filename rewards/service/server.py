"""Runs the service: the pool, uvicorn around it, and the drain on SIGTERM."""

from __future__ import annotations

from types import FrameType

import uvicorn

from rewards.pool import RewardPool
from rewards.service.app import create_app
from rewards.service.load import Load
from rewards.service.settings import ServiceSettings

KEEP_ALIVE_S = 30
CLOSE_S = 5
"""How long uvicorn may take to close connections once nothing is in flight."""


def serve(settings: ServiceSettings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what is in flight. A second signal ends it at once.

    Raises:
        PoolError: the workers can't be started.
        PluginError, UnknownVerifier: as `RewardPool`.
        SystemExit: the address can't be bound.
    """
    sizes = settings.workers, settings.timeout_s, settings.memory_mb
    with RewardPool(*sizes, timeouts=settings.timeouts, plugins=settings.plugins) as pool:
        load = Load(settings)
        config = uvicorn.Config(
            create_app(settings, pool, load),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
        )
        DrainingServer(config, load).run()


class DrainingServer(uvicorn.Server):
    """Goes on listening while it drains, so that /healthz can say so; uvicorn alone would close the port first."""

    def __init__(self, config: uvicorn.Config, load: Load) -> None:
        super().__init__(config)
        self._load = load

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._load.draining:
            self.should_exit = self.force_exit = True
        self._load.drain()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by uvicorn; True ends the main loop."""
        if self._load.drained():
            self.should_exit = True
        return await super().on_tick(counter)
