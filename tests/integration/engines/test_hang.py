"""An SGLang server with a process that is stopped, as one that hangs: no ping comes back, so it can be replaced."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rl.errors import EngineDeadError
from rl.models.encoder import EncodedPrompt
from rl.rollout.inside_sglang.rl_serve import shared_files
from rl.rollout.sglang_engine import SglangEngine
from tests.integration.support import Paths, engine_config, request

pytestmark = pytest.mark.timeout(1800)

SLOTS = 8
SILENT_S = 5.0
"""A healthy server answers within a second on two cores."""


@pytest.fixture(scope="module")
def hanging(paths: Paths) -> Iterator[SglangEngine]:
    """One server for the tests here, of which the last ends it."""
    engine = SglangEngine(paths.random, engine_config("sglang", max_num_seqs=SLOTS))
    yield engine
    engine.close()


async def _busy(engine: SglangEngine, prompt: EncodedPrompt) -> asyncio.Task[object]:
    """A long request that is under way, most of it in the queue."""
    long = asyncio.create_task(engine.generate(request("long", prompt, n=6 * SLOTS, temperature=2.0, max_tokens=480)))
    await asyncio.sleep(0)  # it is handed in first
    while not engine.load().waiting or not engine.load().kv_use:
        await engine.ping()
    return long


def _family(engine: SglangEngine) -> list[psutil.Process]:
    leader = psutil.Process(engine._server.group)
    return [leader, *leader.children(recursive=True)]


async def test_a_ping_of_a_paused_engine_is_answered(hanging: SglangEngine, prompts: list[EncodedPrompt]) -> None:
    """As it is in a push, with requests in its queue and none under way."""
    long = await _busy(hanging, prompts[-1])
    post = hanging._client.post
    await hanging._client.run(post("/pause_generation", {"mode": "retract"}))
    for _ in range(3):
        await hanging.ping()
    assert not long.done()
    await hanging._client.run(post("/continue_generation", {"torch_empty_cache": False}))
    await hanging.abort("long")
    await long


@pytest.mark.parametrize("part", ["scheduler", "detokenizer", "leader"])
async def test_a_ping_of_a_hung_process_is_not_answered(
    hanging: SglangEngine, prompts: list[EncodedPrompt], part: str
) -> None:
    leader, *others = _family(hanging)
    named = [process for process in others if f"sglang::{part}" in " ".join(process.cmdline())]
    process = leader if part == "leader" else named[0]
    long = await _busy(hanging, prompts[-1])
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENT_S):
                await hanging.ping()
        assert not long.done()
    finally:
        process.send_signal(signal.SIGCONT)
        await hanging.abort("long")
        await long
    await hanging.ping()


async def test_a_stopped_server_ends_with_its_worker(hanging: SglangEngine, prompts: list[EncodedPrompt]) -> None:
    """The worker's end is that of its pipe to the server, which a stopped leader does not see."""
    leader, *others = _family(hanging)
    shared, folder = shared_files(leader.pid), hanging._server._folder
    long = await _busy(hanging, prompts[-1])
    leader.send_signal(signal.SIGSTOP)
    pipe = hanging._server._process
    assert pipe is not None and pipe.stdin is not None and shared and folder.exists()
    pipe.stdin.close()
    _, alive = await asyncio.to_thread(psutil.wait_procs, [leader, *others], timeout=30)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not folder.exists() and not any(Path(path).exists() for path in shared)
    with pytest.raises(EngineDeadError, match="the SGLang engine died"):
        await long
