"""A worker that can't start says why in the words of the cause: an actor whose constructor raises leaves a stack."""

from __future__ import annotations

import pytest

from rl.config.data import PromptConfig
from rl.config.rollout import EngineConfig
from rl.errors import EngineError, RLError, first_lines
from rl.rollout import worker
from rl.rollout.worker import RolloutWorker


def failing(error: Exception):
    def build(*_: object) -> None:
        raise error

    return build


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EngineError("vLLM could not load m: too long"), "vLLM could not load m: too long"),
        (OSError("no tokenizer\n" + "stack\n" * 100), "rollout-0 can't start: OSError: no tokenizer"),
    ],
)
async def test_ready_raises_what_kept_the_worker_from_starting(monkeypatch, error, said):
    monkeypatch.setattr(worker, "PromptEncoder", failing(error))
    made = RolloutWorker("rollout-0", "m", EngineConfig(), PromptConfig(), ())
    with pytest.raises(RLError) as caught:
        await made.ready()
    assert str(caught.value).startswith(said) and len(str(caught.value).splitlines()) <= 6
    await made.close()


def test_a_long_message_is_cut():
    assert first_lines(ValueError("a\nb\nc"), lines=2) == "a\nb"
    assert first_lines(ValueError("abcdef"), chars=3) == "abc ..."
    assert first_lines(KeyError()) == "KeyError"
