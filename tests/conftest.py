"""Settings of every test: no network, one thread for each process, and a stack dump on request."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

import pytest

# Before torch, transformers or Ray are imported, and inherited by every process that a test starts.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["WANDB_MODE"] = "offline"
os.environ["MPLBACKEND"] = "Agg"

INTEGRATION_SECONDS = 300
TESTS = Path(__file__).parent


def pytest_configure() -> None:
    """`kill -USR1 PID` prints where each thread of a hanging test stands."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests under tests/integration are marked so, and have more time unless they say how much."""
    for item in items:
        if TESTS / "integration" in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(INTEGRATION_SECONDS))
