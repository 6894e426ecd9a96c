"""The loop's reward worker: answer types alone, or a mixture for training and answer types for evaluations."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import rl.cluster
import rl.train
from rewards import PoolError
from rewards.mixture import MixtureConfig
from rewards.settings import load_settings, parse_settings
from rl.config.base import dump_yaml
from rl.config.rollout import RewardConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError, EngineDeadError
from rl.records import Sample
from rl.reward_setup import Carried, carry, check_answer_types, mixture_of, problems
from rl.rewarding import JudgeWorker, RewardWorker
from rl.rollout.worker import RolloutWorker, ScoringTask
from tests.unit.rewards.judge_server import Call, Reply, score, serve

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
NO_DEFAULT = "tasks:" + MIXTURE.partition("tasks:")[2]
JUDGES = "judges: {any: {url: 'http://127.0.0.1:9', model: m}}"
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
    grades = await worker.score(task())
    assert (grades.rewards, grades.statuses) == ((1.0, 1.0, 0.0, 0.0), ("ok", "ok", "ok", "no_answer"))
    assert grades.raw == grades.outcomes == grades.rewards
    assert grades.components[1] == {"accuracy": 1.0, "format": 0.0}
    assert await worker.state_dict() is None


async def test_a_mixture_grades_training_and_not_evaluations(
    worker_of: Callable[[str | None], RewardWorker],
) -> None:
    worker = worker_of(MIXTURE)
    # right and in form; right without reasoning; wrong; no answer
    grades = await worker.score(task())
    assert (grades.rewards, grades.statuses) == ((1.0, 0.75, 0.0, 0.0), ("ok", "ok", "ok", "no_answer"))
    assert (grades.raw, grades.outcomes) == (grades.rewards, (1.0, 1.0, 0.0, 0.0))
    assert grades.components[1] == {"accuracy": 1.0, "form": 0.0}
    grades = await worker.score(task(), True)
    assert (grades.rewards, grades.outcomes) == ((1.0, 1.0, 0.0, 0.0),) * 2
    # mean 1/2, deviation 1/2
    grades = await worker.score(task("scaled"))
    assert (grades.rewards, grades.raw) == ((1.0, 1.0, -1.0, -1.0), (1.0, 1.0, 0.0, 0.0))
    assert grades.outcomes == grades.raw
    await worker.score(task("scaled"), True)
    state = await worker.state_dict()
    assert state is not None and state["tasks"]["scaled"] == [4, pytest.approx(0.5), pytest.approx(0.25)]
    other = worker_of(MIXTURE)
    await other.load_state_dict(state)
    assert await other.state_dict() == state


async def test_columns_reach_the_graders(worker_of: Callable[[str | None], RewardWorker]) -> None:
    text = MIXTURE.replace("task: source", "task: family")
    worker = worker_of(text)
    assert (await worker.score(task(columns={"family": "scaled"}))).rewards == (1.0, 1.0, -1.0, -1.0)


async def test_rows_without_a_recipe_fail_and_say_why(worker_of: Callable[[str | None], RewardWorker]) -> None:
    worker = worker_of(NO_DEFAULT)
    grades = await worker.score(task("scalde"))
    assert (grades.rewards, grades.outcomes, grades.statuses) == ((None,) * 4, (None,) * 4, ("error",) * 4)
    assert grades.failure.startswith("error: task 'scalde' is not known; did you mean scaled?")


def test_what_can_not_be_graded_is_said_before_actors_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answer type judge, which only a judge can grade"):
        rl.cluster.RewardClient(RewardConfig(), ["number", "judge"])
    file = tmp_path / "mixture.yaml"
    file.write_text(MIXTURE.replace("weighted", "wieghted"))
    with pytest.raises(ConfigError, match=r"(?s)rewards\.mixture: .*exactly one of the keys"):
        mixture_of(RewardConfig(mixture=str(file)))
    file.write_text(MIXTURE)
    config = RewardConfig(mixture=str(file))
    with pytest.raises(ConfigError, match="only a judge"):
        check_answer_types(config, mixture_of(config), ("caption-qa",))
    check_answer_types(RewardConfig(url="http://127.0.0.1:9"), None, ("caption-qa",))
    check_answer_types(RewardConfig(plugins={"caption-qa": "mine:verify"}), None, ("caption-qa",))
    file.write_text(MIXTURE + JUDGES)
    settings = mixture_of(config)
    check_answer_types(config, settings, ("caption-qa",))
    assert settings is not None and settings.verifiers() == ["format"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Two sources, in both containers that are looked at."""
    table = {"source": ["scaled", "scalde", None], "answer_type": ["number"] * 3}
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_tasks_without_a_recipe_are_a_problem_before_the_run(tmp_path: Path, rows: Path) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text(MIXTURE)
    config = RewardConfig(mixture=str(file))
    assert problems(config, ["number"], str(rows)) == []
    file.write_text(NO_DEFAULT)
    (problem,) = problems(config, ["number"], str(rows))
    assert "no recipe for 2 of the tasks: 'number', 'scalde'" in problem and "set `default`" in problem
    assert "(a task is a row's `source`)" in problem
    assert problems(config, ["number"], str(tmp_path / "elsewhere.parquet")) == []  # not here: the run will see
    assert problems(config, ["number"]) == []  # nothing is trained on
    file.write_text(MIXTURE.replace("verifier: format", "verifier: fromat"))
    assert "did you mean format" in problems(config, ["number"])[0]


def test_a_service_knows_its_own_names(tmp_path: Path) -> None:
    """Its plug-ins are not known here, and it is asked when the run starts."""
    file = tmp_path / "mixture.yaml"
    file.write_text(MIXTURE.replace("verifier: format", "verifier: theirs"))
    assert "'theirs' is not known" in problems(RewardConfig(mixture=str(file)), ["number"])[0]
    assert problems(RewardConfig(mixture=str(file), url="http://127.0.0.1:9"), ["number", "theirs"]) == []


def test_what_a_mixture_needs_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mixture.yaml").write_text(MIXTURE + JUDGES.replace("model: m", "model: m, cache: runs/j.sqlite"))
    carried = carry(RewardConfig(mixture="mixture.yaml"))
    Path("mixture.yaml").unlink()  # as on another node, where there is no such file
    arrived = pickle.loads(pickle.dumps(carried))
    assert arrived.mixture == carried.mixture
    assert arrived.mixture.judges["any"].cache == str(tmp_path / "runs" / "j.sqlite")
    Path("mixture.yaml").write_text(MIXTURE + JUDGES.replace("model: m", "model: m, cache: runs/j.sqlite"))
    moved = carry(RewardConfig(mixture="mixture.yaml", root="/shared/me"))
    assert moved.mixture is not None and moved.mixture.judges["any"].cache == "/shared/me/runs/j.sqlite"


def test_the_saved_mixture_is_the_mixture() -> None:
    """What a run folder keeps says the same as the file did."""
    file = Path(__file__).parents[2] / "configs" / "rewards" / "science.yaml"
    mixture = load_settings(MixtureConfig, file)
    text = dump_yaml(mixture.model_dump(mode="json", exclude_defaults=True))
    assert parse_settings(MixtureConfig, yaml.safe_load(text)) == mixture


def test_a_token_that_is_not_set_is_said_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text(MIXTURE + JUDGES.replace("model: m", "model: m, api_key_env: JUDGE_KEY_FOR_TESTS"))
    config = RewardConfig(mixture=str(file))
    monkeypatch.delenv("JUDGE_KEY_FOR_TESTS", raising=False)
    assert "judges.any.api_key_env" in problems(config, ["number"])[0]
    with pytest.raises(ConfigError, match="names JUDGE_KEY_FOR_TESTS, which is not set here"):
        carry(config)
    monkeypatch.setenv("JUDGE_KEY_FOR_TESTS", "s3cret")
    carried = carry(config)
    assert carried.secrets == {"JUDGE_KEY_FOR_TESTS": "s3cret"}
    assert "s3cret" not in repr(carried) + repr(config)


async def test_the_limits_of_a_judge_hold_over_all_workers(tmp_path: Path) -> None:
    """Two workers ask at once, and the one slot that the judge has is never exceeded; both have the key's owner."""
    held, release = threading.Event(), threading.Event()

    def script(call: Call, number: int) -> Reply:
        held.set()
        release.wait(20)
        return score(1)

    with serve(script) as server:
        file = tmp_path / "mixture.yaml"
        judge = f"judges: {{any: {{url: '{server.url}', model: m, concurrency: 1, api_key_env: JUDGE_KEY}}}}"
        file.write_text(MIXTURE + judge)
        config = RewardConfig(mixture=str(file))
        carried = Carried(mixture=mixture_of(config), secrets={"JUDGE_KEY": "s3cret"})
        assert carried.mixture is not None
        judges = JudgeWorker(carried.mixture.judges, carried.secrets)
        workers = [RewardWorker(config, ("judge",), carried, Handle(judges)) for _ in range(2)]
        try:
            asked = [asyncio.create_task(worker.score(task(answer_type="judge"))) for worker in workers]
            await asyncio.to_thread(held.wait, 20)
            release.set()
            for grades in await asyncio.gather(*asked):
                # right, right without reasoning, wrong form is not the judge's business; the last one gives no answer
                assert grades.outcomes == (1.0, 1.0, 1.0, 0.0)
            assert server.most_at_once == 1
            assert len(server.calls) == 2  # "4" and "5": equal questions of both workers are one
            assert {call.headers["authorization"] for call in server.calls} == {"Bearer s3cret"}
        finally:
            release.set()
            for worker in workers:
                await worker.close()
            await judges.close()


class Handle:
    """A `JudgeWorker` of this process, called as an actor is."""

    def __init__(self, worker: JudgeWorker) -> None:
        class Score:
            @staticmethod
            def remote(name: str, requests: Any) -> Any:
                return worker.score(name, requests)

        self.score = Score


async def test_a_pool_that_can_start_no_process_is_the_workers_end(
    worker_of: Callable[[str | None], RewardWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may find the memory that this one lacks; so this one counts as dead, and the run goes on."""
    worker = worker_of(None)
    await worker.score(task())

    def exhausted() -> None:
        raise PoolError("the reward pool can't start a worker: Cannot allocate memory")

    monkeypatch.setattr(worker.pool._template, "fork", exhausted)  # type: ignore[union-attr]
    for process in list(worker.pool._lanes._live):  # type: ignore[union-attr]
        process.kill()
    with pytest.raises(EngineDeadError, match=r"can't go on: .*Cannot allocate memory"):
        await worker.score(task())


async def test_a_checkpoint_does_not_wait_for_a_reward_worker_that_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def never(call: Any, bare: bool) -> None:
        await asyncio.Event().wait()

    client = object.__new__(rl.cluster.RewardClient)
    client.fleet = SimpleNamespace(each=never)  # type: ignore[assignment]
    client._states, client.config = [{"a": 1}], RewardConfig()
    assert await client.state_dict() == []  # there are none without a mixture
    client.config = RewardConfig(mixture="mixture.yaml")
    monkeypatch.setattr(rl.cluster, "_STATE_S", 0.01)
    assert await client.state_dict() == [{"a": 1}]
    assert "has not told its state" in caplog.text


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


def test_a_run_stops_before_its_actors_start(tmp_path: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mixture.yaml"
    file.write_text(NO_DEFAULT)
    raw = {"model": "m", "out": str(tmp_path / "run"), "steps": 1, "data": {"train": str(rows)}}
    config = TrainConfig.model_validate(raw | {"rewards": {"mixture": str(file)}})
    monkeypatch.setattr(rl.train, "connect", pytest.fail)
    with pytest.raises(ConfigError, match="no recipe for 2 of the tasks"):
        rl.train.run(config)
    assert any("no recipe for 2 of the tasks" in problem for problem in rl.train.check(config))


async def test_the_rollout_worker_names_the_tasks_that_graders_will_see() -> None:
    def sample(source: str, **extra: Any) -> Sample:
        return Sample("i", "2 + 2?", ("4",), (), "counting", "number", source, extra=extra)

    worker = object.__new__(RolloutWorker)
    rows = [sample("a", family="f"), sample("b", family=None), sample("a", tokens="x")]
    worker.stores = {"d": rows}  # type: ignore[dict-item]
    assert await worker.tasks("d", "source") == ("a", "b")
    assert await worker.tasks("d", "family") == ("f", "number")
    assert await worker.tasks("d", "problem_type") == ("counting",)
    assert await worker.tasks("d", "tokens") == ("number",)  # a column that graders do not get
