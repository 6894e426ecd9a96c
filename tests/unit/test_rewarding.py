"""The loop's reward worker: answer types alone, or a mixture for training and answer types for evaluations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rl.cluster
from rl.config.rollout import RewardConfig
from rl.errors import ConfigError
from rl.rewarding import RewardWorker, mixture_of
from rl.rollout.worker import ScoringTask

MIXTURE = """
task: source
default:
  reward:
    weighted:
      - {name: accuracy, verifier: auto, weight: 3}
      - {name: form, verifier: format, weight: 1}
tasks:
  scaled:
    reward: {name: accuracy, verifier: auto}
    normalise: {running: {min_count: 2}}
"""
TEXTS = ("<think>so</think><answer>4</answer>", "<answer>4</answer>", "<answer>5</answer>", "4")


def task(source: str = "s", answer_type: str = "number", **more: Any) -> ScoringTask:
    return ScoringTask(TEXTS, ("4",), answer_type, "think", "2 + 2?", None, source, **more)


@pytest.fixture
async def worker_of(tmp_path: Path) -> AsyncIterator[Callable[[str | None], RewardWorker]]:
    made: list[RewardWorker] = []

    def make(text: str | None) -> RewardWorker:
        file = tmp_path / "mixture.yaml"
        file.write_text(text or "")
        made.append(RewardWorker(RewardConfig(mixture=str(file) if text else None), ("number",)))
        return made[-1]

    yield make
    for worker in made:
        await worker.close()


async def test_without_a_mixture_the_answer_type_grades(worker_of: Callable[[str | None], RewardWorker]) -> None:
    worker = worker_of(None)
    assert await worker.score(task()) == ((1.0, 1.0, 0.0, 0.0), ("ok", "ok", "ok", "no_answer"))
    assert await worker.state_dict() is None


async def test_a_mixture_grades_training_and_not_evaluations(
    worker_of: Callable[[str | None], RewardWorker],
) -> None:
    worker = worker_of(MIXTURE)
    # right and in form; right without reasoning; wrong; no answer
    assert await worker.score(task()) == ((1.0, 0.75, 0.0, 0.0), ("ok", "ok", "ok", "no_answer"))
    assert await worker.score(task(), True) == ((1.0, 1.0, 0.0, 0.0), ("ok", "ok", "ok", "no_answer"))
    # mean 1/2, deviation 1/2
    assert (await worker.score(task("scaled")))[0] == (1.0, 1.0, -1.0, -1.0)
    await worker.score(task("scaled"), True)
    state = await worker.state_dict()
    assert state is not None and state["tasks"]["scaled"] == [4, pytest.approx(0.5), pytest.approx(0.25)]
    other = worker_of(MIXTURE)
    await other.load_state_dict(state)
    assert await other.state_dict() == state


async def test_columns_reach_the_graders(worker_of: Callable[[str | None], RewardWorker]) -> None:
    text = MIXTURE.replace("task: source", "task: family")
    worker = worker_of(text)
    assert (await worker.score(task(columns={"family": "scaled"})))[0] == (1.0, 1.0, -1.0, -1.0)


def test_what_can_not_be_graded_is_said_before_actors_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answer type judge, which only a judge can grade"):
        rl.cluster.RewardClient(RewardConfig(), ["number", "judge"])
    file = tmp_path / "mixture.yaml"
    file.write_text(MIXTURE.replace("weighted", "wieghted"))
    with pytest.raises(ConfigError, match=r"(?s)rewards\.mixture: .*exactly one of the keys"):
        mixture_of(RewardConfig(mixture=str(file)), ())
    file.write_text(MIXTURE)
    with pytest.raises(ConfigError, match="only a judge"):
        mixture_of(RewardConfig(mixture=str(file)), ("caption-qa",))
    file.write_text(MIXTURE + "judges: {any: {url: http://127.0.0.1:9, model: m}}")
    settings = mixture_of(RewardConfig(mixture=str(file)), ("caption-qa",))
    assert settings is not None and settings.verifiers() == ["format"]


async def test_states_go_back_to_the_workers_in_turn() -> None:
    class Remote:
        def __init__(self, taken: list[Any]) -> None:
            self.taken = taken

        async def remote(self, state: Any) -> None:
            self.taken.append(state)

    class Actor:
        def __init__(self) -> None:
            self.taken: list[Any] = []
            self.load_state_dict = Remote(self.taken)

    actors = [Actor(), Actor(), Actor()]

    async def each(call: Callable[[Actor], Awaitable[None]]) -> None:
        for actor in actors:
            await call(actor)

    client = object.__new__(rl.cluster.RewardClient)
    client.fleet = SimpleNamespace(each=each)  # type: ignore[assignment]
    await client.load_state_dict([{"a": 1}, None, {"b": 2}])
    assert [actor.taken for actor in actors] == [[{"a": 1}], [{"b": 2}], [{"a": 1}]]
    await client.load_state_dict([None])
    await client.load_state_dict([])
    assert [len(actor.taken) for actor in actors] == [1, 1, 1]
