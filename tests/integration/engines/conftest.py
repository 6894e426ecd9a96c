"""The contract that every engine keeps: the tests here run on each, one engine at a time.

SGLang runs in an environment of its own (`make install-sglang`) on the platform of requirements/sglang_cpu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rl.rollout.engine import Engine
from rl.rollout.engines import ENGINES
from tests.integration.support import Paths, Teacher, engine_config, with_first_weights


@pytest.fixture(scope="session", params=list(ENGINES))
def served(request: pytest.FixtureRequest, paths: Paths) -> Iterator[Engine]:
    """Each engine in turn, with the random model."""
    if request.param == "vllm":
        yield request.getfixturevalue("shared_engine")  # of other tests too
        return
    engine = ENGINES[request.param](paths.random, engine_config(request.param))
    yield engine
    engine.close()


@pytest.fixture
async def engine(served: Engine, teacher: Teacher) -> Engine:
    """On the random model's weights, whatever the test before pushed."""
    await served.resume()  # a test may have failed in a pause
    return await with_first_weights(served, teacher)


@pytest.fixture
def start(paths: Paths) -> Iterator[Callable[..., Engine]]:
    """Starts an engine of a backend for one test, which may end it; with other settings than the session's if given."""
    started: list[Engine] = []

    def make(backend: str, **changes: Any) -> Engine:
        started.append(ENGINES[backend](paths.random, engine_config(backend, **changes)))
        return started[-1]

    yield make
    for engine in started:
        engine.close()
