"""The contract that every engine keeps: the tests here run on each, one engine at a time.

SGLang runs in an environment of its own (`make install-sglang`) on the platform of requirements/sglang_cpu.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rl.config.rollout import EngineConfig, SglangConfig
from rl.rollout.engine import Engine
from rl.rollout.engines import ENGINES
from rl.rollout.sglang_server import PYTHON
from tests.integration.support import ENGINE, Paths, Teacher, with_first_weights

START_S = 1500.0
"""SGLang's three processes import for half a minute each, and for many minutes beside other work."""


def config_of(backend: str) -> EngineConfig:
    """The session's settings for a backend; skips the test where the machine lacks it."""
    settings = ENGINE.model_dump() | {"backend": backend}
    if backend == "sglang":
        if os.environ.get("SKIP_SGLANG"):
            pytest.skip("SKIP_SGLANG is set")
        if PYTHON not in os.environ and not Path(".venv-sglang/.installed").exists():
            pytest.skip("no SGLang here; `make install-sglang` installs it")
        settings["sglang"] = SglangConfig(start_s=START_S).model_dump()
    return EngineConfig.model_validate(settings)


@pytest.fixture(scope="session", params=list(ENGINES))
def served(request: pytest.FixtureRequest, paths: Paths) -> Iterator[Engine]:
    """Each engine in turn, with the random model."""
    if request.param == "vllm":
        yield request.getfixturevalue("shared_engine")  # of other tests too
        return
    engine = ENGINES[request.param](paths.random, config_of(request.param))
    yield engine
    engine.close()


@pytest.fixture
async def engine(served: Engine, teacher: Teacher) -> Engine:
    """On the random model's weights, whatever the test before pushed."""
    return await with_first_weights(served, teacher)


@pytest.fixture
def start(paths: Paths) -> Iterator[Callable[[str], Engine]]:
    """Starts an engine of a backend for one test, which may end it."""
    started: list[Engine] = []

    def make(backend: str) -> Engine:
        started.append(ENGINES[backend](paths.random, config_of(backend)))
        return started[-1]

    yield make
    for engine in started:
        engine.close()
