"""How busy an SGLang server is, from what it holds now and what it said of its queue before."""

from __future__ import annotations

import pytest

from rl.rollout.engine import EngineLoad
from rl.rollout.sglang_engine import load_of


@pytest.mark.parametrize(
    ("held", "queued", "running", "waiting"),
    [
        (0, 0, 0, 0),
        (0, 5, 0, 0),  # all have ended since
        (6, 0, 6, 0),
        (10, 0, 8, 2),  # as they came, and 8 have a slot
        (6, 4, 2, 4),  # slots are free, and the cache is full
        (10, 4, 6, 4),
        (3, 4, 0, 3),  # some have ended since
    ],
)
def test_what_waits_is_what_the_server_says_or_what_has_no_slot(
    held: int, queued: int, running: int, waiting: int
) -> None:
    assert load_of(held, 8, queued, 0.9) == EngineLoad(running, waiting, 0.9 if held else 0.0, 8)
