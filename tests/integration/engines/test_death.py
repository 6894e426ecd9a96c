"""Engines that can't go on: what is in flight fails, the cause is told, and nothing is served or left after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil
import pytest

from rl.errors import EngineDeadError, SyncError
from rl.learner.export import checkpoint_tensors
from rl.models.encoder import EncodedPrompt
from rl.rollout.engine import Engine
from rl.rollout.engines import ENGINES
from rl.rollout.sglang_engine import SglangEngine
from rl.sync.bundle import pack
from tests.integration.support import Teacher, request

pytestmark = pytest.mark.timeout(1800)
Start = Callable[[str], Engine]


async def _busy(engine: Engine, prompt: EncodedPrompt) -> asyncio.Task[object]:
    """A long request that is under way."""
    long = asyncio.create_task(engine.generate(request("long", prompt, n=16, temperature=2.0, max_tokens=480)))
    await asyncio.sleep(0)  # it is handed in first
    await engine.generate(request("short", prompt, max_tokens=2))
    return long


async def _is_over(engine: Engine, prompt: EncodedPrompt) -> None:
    with pytest.raises(EngineDeadError, match="not running"):
        await engine.generate(request("late", prompt))
    with pytest.raises(EngineDeadError, match="not running"):
        await engine.ping()


@pytest.mark.parametrize(("part", "replacement"), [("o_proj", "nonsense.weight"), ("k_proj", None)])
@pytest.mark.parametrize("backend", list(ENGINES))
async def test_a_push_that_does_not_fit_is_the_end(
    start: Start, backend: str, teacher: Teacher, prompts: list[EncodedPrompt], part: str, replacement: str | None
) -> None:
    """A name that the engine does not know, or one that is missing, from inside a fused parameter, too: an engine that
    passes over it would go on with half the weights."""
    engine = start(backend)
    good = checkpoint_tensors(teacher.policy)
    name = next(name for name in good if part in name)
    wrong = {key: tensor for key, tensor in good.items() if key != name}
    if replacement is not None:
        wrong[replacement] = good[name]
    long = await _busy(engine, prompts[-1])
    named = {"k_proj": "(k_proj|qkv_proj)"}.get(part, part)  # SGLang names its own parameter
    with pytest.raises(SyncError, match=rf"(?s)could not load version 1 and refuses further work: .*{named}"):
        await engine.update_weights(pack(wrong, 1))
    with pytest.raises(EngineDeadError):
        await long
    await _is_over(engine, prompts[-1])
    with pytest.raises((EngineDeadError, SyncError)):
        await engine.update_weights(pack(good, 2))


@pytest.mark.parametrize("backend", list(ENGINES))
async def test_a_closed_engine(start: Start, backend: str, prompts: list[EncodedPrompt]) -> None:
    engine = start(backend)
    long = await _busy(engine, prompts[-1])
    await asyncio.to_thread(engine.close)
    with pytest.raises(EngineDeadError):
        await long
    await _is_over(engine, prompts[-1])


async def test_a_killed_scheduler_takes_the_server_with_it(start: Start, prompts: list[EncodedPrompt]) -> None:
    """As the kernel kills it when memory is short: SIGKILL, without a word."""
    engine = start("sglang")
    assert isinstance(engine, SglangEngine)
    server = psutil.Process(engine._server.group)
    family = server.children(recursive=True)
    long = await _busy(engine, prompts[-1])
    next(process for process in family if "scheduler" in " ".join(process.cmdline())).kill()
    with pytest.raises(EngineDeadError, match="the SGLang engine died"):
        await long
    await _is_over(engine, prompts[-1])
    _, alive = psutil.wait_procs([server, *family], timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


async def test_a_server_killed_in_a_push_is_dead_and_the_weights_are_not_to_blame(
    start: Start, teacher: Teacher, prompts: list[EncodedPrompt]
) -> None:
    """So another one is started with them. The kill comes once the server has taken the push's first request."""
    engine = start("sglang")
    assert isinstance(engine, SglangEngine)
    post = engine._client.post

    async def killing(path: str, payload: object) -> object:
        answer = await post(path, payload)
        if path == "/begin_weight_update":
            psutil.Process(engine._server.group).kill()
        return answer

    engine._client.post = killing  # type: ignore[method-assign]
    with pytest.raises(EngineDeadError, match="the SGLang engine died"):
        await engine.update_weights(pack(checkpoint_tensors(teacher.policy), 1))
    await _is_over(engine, prompts[-1])
