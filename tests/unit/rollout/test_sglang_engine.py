"""A push that fails: a server that died may be replaced, weights that one refused no other one could load."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rl.errors import EngineDeadError, SyncError
from rl.rollout import sglang_push
from rl.rollout.inside_sglang import rl_weights
from rl.rollout.sglang_client import Gone, Refused
from rl.rollout.sglang_engine import SglangEngine
from rl.rollout.sglang_push import StagedWeights
from rl.sync.bundle import pack


class Server:
    """One that is dead once it is closed, or by itself where `alive` is set to False."""

    def __init__(self) -> None:
        self.alive = True

    def close(self) -> None:
        self.alive = False

    def last_words(self) -> str:
        return "Killed"


def engine_with(server: Server, answer: Any) -> SglangEngine:
    """An engine without a process; `answer(path)` is the server's."""

    async def run(work: Any) -> Any:
        return await work

    async def post(path: str, payload: Any = None) -> Any:
        return answer(path)

    engine = object.__new__(SglangEngine)
    engine._open = asyncio.Event()
    engine._open.set()
    engine._pausing, engine._paused = asyncio.Lock(), False
    engine._weights, engine._ranks, engine._version, engine._failure = StagedWeights(), 1, 0, None
    engine._server = server  # type: ignore[assignment]
    soon = asyncio.get_running_loop().call_soon
    engine._client = SimpleNamespace(run=run, post=post, get=post, soon=soon)  # type: ignore[assignment]
    return engine


def failing(at: str, exc: Exception) -> Any:
    def answer(path: str) -> Any:
        if path == at:
            raise exc
        return {"success": True}

    return answer


@pytest.mark.parametrize("at", ["/pause_generation", "/update_weights_from_tensor"])
async def test_a_server_that_dies_in_a_push_is_dead_and_may_be_replaced(at: str) -> None:
    server = Server()

    def dies(path: str) -> Any:
        if path == at:
            server.alive = False
            raise Gone("ReadError")
        return {"success": True}

    engine = engine_with(server, dies)
    with pytest.raises(EngineDeadError, match=r"the SGLang engine died: ReadError\. The end of its log:\nKilled"):
        await engine.update_weights(pack({"w": torch.zeros(3)}, 1))
    with pytest.raises(EngineDeadError, match="not running"):
        await engine.ping()


@pytest.mark.parametrize(
    "answer",
    [
        failing("/update_weights_from_tensor", Refused("no parameter w")),
        lambda path: {"success": path != "/update_weights_from_tensor", "message": "no parameter w"},
    ],
)
async def test_weights_that_are_refused_are_a_failed_push(answer: Any) -> None:
    server = Server()
    engine = engine_with(server, answer)
    with pytest.raises(SyncError, match=r"could not load version 1 and refuses further work: .*no parameter w"):
        await engine.update_weights(pack({"w": torch.zeros(3)}, 1))
    assert not server.alive  # half-written weights are never sampled from


async def test_weights_that_end_the_server_are_a_failed_push(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loader raises ends SGLang's processes; it has said so in the memory before."""
    server = Server()
    engine = engine_with(server, lambda path: refuse() if path == "/update_weights_from_tensor" else {"success": True})
    monkeypatch.setenv("RL_WEIGHTS_FILE", engine._weights.path)
    model = torch.nn.Linear(2, 2)
    model.load_weights = lambda tensors: None  # type: ignore[assignment]

    def refuse() -> Any:
        with pytest.raises(ValueError, match="2 of 2 parameters, weight, bias among them, got no weights"):
            rl_weights.load(model, None)
        server.alive = False
        raise Gone("ReadError")

    with pytest.raises(SyncError, match="could not load version 1 and refuses further work: Killed"):
        await engine.update_weights(pack({"w": torch.zeros(3)}, 1))
    engine._weights.stage(pack({"w": torch.zeros(3)}, 2))
    assert not engine._weights.refused


def loads(model: Any, scheduler: Any) -> None:
    """As SGLang calls the loader: somewhere below a method of what holds the scheduler."""
    Updater = type("Updater", (), {"scheduler": scheduler, "update": lambda self: rl_weights.load(model, None)})
    Updater().update()


@pytest.mark.parametrize(
    ("stopped", "pause_s"),
    [
        pytest.param(1.5, 1.5, id="told"),
        pytest.param(None, 2.0, id="not told"),
        pytest.param(-100.0, 3.0, id="paused long before"),
    ],
)
async def test_a_pause_counts_from_when_the_server_stopped(
    monkeypatch: pytest.MonkeyPatch, stopped: float | None, pause_s: float
) -> None:
    """The clock says 0 at the beginning, 1 when the request to pause was answered, 2 with the weights in, 3 at the end.

    Not from the request to pause, which waits for a step; where the server can't tell, from its answer to that; and
    what came before the push is not the push's.
    """
    monkeypatch.setattr(rl_weights, "_forget_images", lambda: None)  # they are SGLang's
    model = torch.nn.Linear(1, 1, bias=False)
    model.load_weights = lambda tensors: model.weight.data.copy_(dict(tensors)["weight"])  # type: ignore[assignment]

    def answer(path: str) -> Any:
        if path == "/update_weights_from_tensor":
            loads(model, SimpleNamespace(_pause_started_at=stopped) if stopped else None)
        return {"success": True, "message": "Success Weight version updated to 1."}

    engine = engine_with(Server(), answer)
    monkeypatch.setenv("RL_WEIGHTS_FILE", engine._weights.path)
    monkeypatch.setattr(sglang_push, "time", SimpleNamespace(monotonic=itertools.count().__next__))
    times = await engine.update_weights(pack({"weight": torch.full((1, 1), 7.0)}, 1))
    assert model.weight.item() == 7.0 and engine.version == 1
    assert (times.pause_s, times.apply_s) == (pause_s, pause_s - 1.0)


async def test_what_a_swap_kept_back_is_of_the_new_version() -> None:
    """Its prefix must not be one that old keys and values are kept under."""
    paused, keys = asyncio.Event(), list[str]()

    def answer(path: str) -> Any:
        if path == "/pause_generation":
            paused.set()
        return {"success": True, "message": "Success Weight version updated to 1."}

    engine = engine_with(Server(), answer)
    engine._client.run = asyncio.ensure_future  # type: ignore[method-assign, assignment]  # a task of its own, as there

    async def kept_back() -> None:
        await paused.wait()
        await engine._open.wait()
        keys.append(engine._body((1,), ())["extra_key"])

    waiting = asyncio.create_task(kept_back())
    engine._open.clear()
    await asyncio.sleep(0)
    await asyncio.gather(engine.update_weights(pack({"w": torch.zeros(3)}, 1)), waiting)
    assert keys == ["1"]


async def test_what_a_pause_keeps_back_fails_when_the_server_dies() -> None:
    server = Server()
    engine = engine_with(server, lambda path: {"success": True})
    engine._in_flight, engine._busy_since = {}, 0.0
    await engine.pause()
    waiting = asyncio.create_task(engine._open.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    server.alive = False
    with pytest.raises(EngineDeadError):
        await engine.ping()
    await waiting


async def test_a_server_that_stays_with_its_version_is_a_failed_push() -> None:
    engine = engine_with(Server(), lambda path: {"success": True, "message": "Success Weight version updated to 11."})
    with pytest.raises(SyncError, match="was given version 1, and says: Success Weight version updated to 11"):
        await engine.update_weights(pack({"w": torch.zeros(3)}, 1))
