"""Plug-ins and the reward service as a run configures them: what is checked first, what travels, who grades."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import rewards
from rewards import RewardPool
from rewards.cli.scaffold import write_plugin
from rl.config.base import load_config, parse_config
from rl.config.rollout import RewardConfig
from rl.config.train import TrainConfig
from rl.data.containers import answer_types
from rl.data.formats import read_samples
from rl.errors import ConfigError
from rl.reward_setup import PluginFile, carry, problems
from rl.rewarding import RewardWorker
from rl.rollout.worker import ScoringTask
from tests.unit.rewards.judge_server import score, serve
from tests.unit.rewards.serving import ROOT, TOKEN, served

BACKWARDS = """
from rewards.base import graded
from rewards.extract import on_final_answer

def grade(prediction, answer, sample):
    return graded(float(prediction == answer[::-1]), str(sample.get("prompt_type")))

verify = on_final_answer(grade)
"""


def task(answer_type: str) -> ScoringTask:
    texts = ("<answer>cba</answer>", "<answer>abc</answer>", "cba")
    return ScoringTask(texts, ("abc",), answer_type, "normal", "Backwards?", None)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(BACKWARDS)
    return path


def test_a_plugin_file_travels_with_the_run(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plugin.parent)
    config = RewardConfig(plugins={"backwards": "mine.py", "again": "./mine.py:verify"})
    carried = carry(config)
    assert carried.files == {
        "backwards": PluginFile("mine.py", None, BACKWARDS.encode()),
        "again": PluginFile("mine.py", "verify", BACKWARDS.encode()),
    }
    monkeypatch.chdir("/")
    plugin.unlink()  # as on another node, where there is no such file
    worker = RewardWorker(config, ("backwards", "again"), carried)
    try:
        for name in ("backwards", "again"):
            grades = asyncio.run(worker.score(task(name)))
            assert (grades.outcomes, grades.statuses) == ((1.0, 0.0, 0.0), ("ok", "ok", "no_answer"))
    finally:
        asyncio.run(worker.close())


def test_problems_are_found_before_a_run(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(RewardConfig(plugins={"backwards": str(plugin)}), ["backwards", "number"]) == []
    assert "rewards.plugins.mine: the plug-in file" in problems(RewardConfig(plugins={"mine": "none.py"}), [])[0]
    assert "No module named 'none'" in problems(RewardConfig(plugins={"mine": "none:verify"}), [])[0]
    (small,) = problems(RewardConfig(memory_mb=600), ["general-code", "number"])
    assert "rewards.memory_mb is 600, and general-code needs 1024" in small
    unknown = problems(RewardConfig(plugins={"backwards": str(plugin)}), ["backward", "number"])
    assert len(unknown) == 1 and "did you mean backwards" in unknown[0]
    remote = RewardConfig(url="http://rewards:8000", token_env="REWARDS_TOKEN_FOR_TESTS")
    assert "REWARDS_TOKEN_FOR_TESTS, which is not set" in problems(remote, ["anything"])[0]
    monkeypatch.setenv("REWARDS_TOKEN_FOR_TESTS", TOKEN)
    assert problems(remote, ["anything"]) == []
    assert TOKEN not in repr(carry(remote))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"url": "rewards:8000"}, "http://host:port"),
        ({"url": "http://me:secret@rewards:8000"}, "would be saved with the run"),
        ({"url": "http://rewards:8000?token=x"}, "would be saved with the run"),
        ({"url": "http://rewards:8000", "token_env": "sk-0123456789"}, "it is not the token"),
        ({"token_env": "REWARDS_TOKEN"}, "set url too"),
        ({"url": "http://rewards:8000", "plugins": {"mine": "mine.py"}}, "plug-ins of its own"),
        ({"timeouts": {"general-coed": 5}}, "did you mean general-code"),
        ({"timeouts": {"number": 0}}, "timeouts.number is 0"),
        ({"timeouts": {"number": 1}, "url": "http://rewards:8000"}, "limits of its own"),
    ],
)
def test_configs_that_can_not_be_used(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(RewardConfig, raw)


def test_time_limits_by_answer_type(plugin: Path) -> None:
    config = RewardConfig(timeout_s=3, timeouts={"slow": 90}, plugins={"slow": str(plugin)})
    worker = RewardWorker(config, ("slow", "number"))
    try:
        assert isinstance(worker.pool, RewardPool)
        limits = {name: worker.pool.timeout_of(name) for name in ("slow", "number", "general-code")}
        assert limits == {"slow": 90, "number": 3, "general-code": 60}
    finally:
        asyncio.run(worker.close())


def test_answer_types_of_datasets(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"answer_type": "number"}\n{"answer_type": "mine"}\nbroken\n{"answer_type": 3}\n'
    )
    pq.write_table(
        pa.table({"answer_type": ["bbox", "bbox", None], "images": [b"x", b"y", b"z"]}), tmp_path / "b.parquet"
    )
    found = answer_types([tmp_path / "a.jsonl", tmp_path / "b.parquet", tmp_path / "none.parquet", None])
    assert found == {"number", "mine", "bbox"}


@pytest.mark.integration
def test_a_service_grades_in_place_of_local_workers(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS_TOKEN_FOR_TESTS", TOKEN)
    options = ("--host", "0.0.0.0", "--timeout", "5", "--plugin", f"backwards={plugin}")
    with served(*options, env={"REWARDS_TOKEN": TOKEN}) as service:
        worker = RewardWorker(RewardConfig(url=service.url, token_env="REWARDS_TOKEN_FOR_TESTS"), ("backwards",))
        try:
            grades = asyncio.run(worker.score(task("backwards")))
            assert (grades.outcomes, grades.statuses) == ((1.0, 0.0, 0.0), ("ok", "ok", "no_answer"))
        finally:
            asyncio.run(worker.close())


@pytest.mark.integration
def test_a_mixture_with_a_service(plugin: Path, tmp_path: Path) -> None:
    """The mixture names a plug-in that only the service has, and judged rows go to the service's own judge."""
    parts = [{"name": "theirs", "verifier": "backwards", "weight": 3}, {"name": "form", "verifier": "format"}]
    recipes = {"text": {"reward": {"weighted": parts}}, "essay": {"reward": {"name": "quality", "verifier": "auto"}}}
    file = tmp_path / "mixture.yaml"
    file.write_text(yaml.safe_dump({"tasks": recipes}))
    judge = tmp_path / "judge.yaml"
    with serve(lambda call, number: score(int("abc" in call.user.partition("BEGIN ANSWER")[2]))) as server:
        judge.write_text(yaml.safe_dump({"url": server.url, "model": "m"}))
        options = ("--timeout", "20", "--plugin", f"backwards={plugin}")
        with served(*options, env={"REWARDS_JUDGE": str(judge)}) as service:
            config = RewardConfig(url=service.url, mixture=str(file))
            assert problems(config, ["any", "judge"]) == []
            worker = RewardWorker(config, ("any", "judge"))
            try:
                grades = asyncio.run(worker.score(replace(task("any"), source="text")))
                # backwards and in form; in form; neither
                assert (grades.rewards, grades.statuses[2]) == ((1.0, 0.25, 0.0), "no_answer")
                grades = asyncio.run(worker.score(replace(task("judge"), source="essay")))
                assert grades.outcomes == (0.0, 1.0, 0.0)
            finally:
                asyncio.run(worker.close())


def test_what_the_page_for_authors_trains_on_fits_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(TrainConfig, ROOT / "configs/plugin/rl.yaml")
    monkeypatch.chdir(tmp_path)
    write_plugin("unordered-list", Path("grading"))
    subprocess.run([sys.executable, ROOT / "examples/lists_data.py", "data"], check=True)
    assert config.data.eval is not None
    assert problems(config.rewards, answer_types([config.data.train, config.data.eval])) == []
    for sample in [*read_samples(config.data.train), *read_samples("data/lists_sft.jsonl")][:600]:
        (gold,) = sample.answers
        completion = f"<answer>{', '.join(reversed(gold.split(', ')))}</answer>"
        assert rewards.score(completion, gold, sample.answer_type, plugins=config.rewards.plugins).value == 1.0
    solutions = [str(sample.extra["solution"]) for sample in read_samples("data/lists_sft.jsonl")]
    golds = [sample.answers[0] for sample in read_samples("data/lists_sft.jsonl")]
    grades = [
        rewards.score(solution, gold, "unordered-list", plugins=config.rewards.plugins).value
        for solution, gold in zip(solutions, golds, strict=True)
    ]
    # one in three has a name drawn anew from eight, which is the old one in one of eight cases
    assert 0.68 < sum(grade == 1.0 for grade in grades) / len(grades) < 0.74
