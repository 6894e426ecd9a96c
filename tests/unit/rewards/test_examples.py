"""The examples for other trainers, called as those call them, against a real service.

Neither TRL nor verl is installed here: what runs is the adapter, with the arguments that their trainers pass.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

pytest.importorskip("fastapi")

from tests.unit.rewards.serving import ROOT, TOKEN, Served, served

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    with served("--host", "0.0.0.0", "--timeout", "5", env={"REWARDS_TOKEN": TOKEN}) as made:
        yield made


@pytest.fixture
def environment(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDS_URL", service.url)
    monkeypatch.setenv("REWARDS_TOKEN", TOKEN)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo(name: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--demo"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_trl(environment: None) -> None:
    module = example("trl_reward")
    texts = ["<answer>B</answer>", "<answer>C</answer>", "<answer>12</answer>"]
    columns = {"answer": [["B"], ["B"], "no number"], "answer_type": ["multiple-choice", "multiple-choice", "number"]}
    extra = {"completion_ids": [[1]] * 3, "trainer_state": None, "source": ["a"] * 3}
    assert module.reward_func(prompts=["?"] * 3, completions=texts, **columns, **extra) == [1.0, 0.0, None]
    # the chat template opened the reasoning, and this one never closes it
    thinking = module.reward_func(["?<think>"], [r"\boxed{B}"], [["B"]], ["multiple-choice"])
    assert thinking == [0.0]
    module.pool().close()


def test_trl_demo(environment: None) -> None:
    assert demo("trl_reward").splitlines() == [
        "rewards: [1.0, 0.0, 0.0, 1.0]",
        "conversational: [1.0, 0.0, 0.0, 1.0]",
        "a gold answer that is no number: [None, None, 0.0, None]",
    ]


def test_verl(environment: None) -> None:
    module = example("verl_reward")
    right = {"score": 1.0, "acc": 1.0, "reward_failed": 0.0}
    arguments = {"data_source": "openai/gsm8k", "ground_truth": "12", "extra_info": {"split": "train"}}
    assert module.compute_score(solution_str="<answer>12</answer>", **arguments) == right
    assert module.compute_score("mine", "<answer>B</answer>", ["A", "B"], {"answer_type": "multiple-choice"}) == right
    failed = module.compute_score("openai/gsm8k", "<answer>12</answer>", "twelve-ish", None, reward_router_address=None)
    assert failed == {"score": 0.0, "acc": 0.0, "reward_failed": 1.0}
    with pytest.raises(ValueError, match="'mine' name no answer_type"):
        module.compute_score("mine", "", "")
    module.pool().close()


def test_verl_demo(environment: None) -> None:
    lines = demo("verl_reward").splitlines()
    assert [line.partition("'score': ")[2][:3] for line in lines] == ["1.0", "0.0", "0.0", "1.0"]
    assert "'reward_failed': 1.0" in lines[2]
