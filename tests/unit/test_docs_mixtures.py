"""The page on mixtures says what the code does: each of its files is loaded and run, with numbers worked by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewards import Mixture, Request
from rewards.base import RewardResult
from rewards.mixture import MixtureConfig
from rewards.pool import SLOW
from rewards.settings import parse_settings
from rl.config.base import parse_config
from rl.config.objective import FilterConfig
from rl.config.rollout import RewardConfig
from tests.unit.rewards.judge_server import Call, Reply, score, serve

PAGE = (Path(__file__).parents[2] / "docs" / "reward_mixtures.md").read_text()
BLOCKS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
BRIEF, TASKS, JUDGED, SCALED, LIMITS = BLOCKS
FORMED = "<think>so</think><answer>4</answer>"
BARE = "<answer>4</answer>"


def mixture(raw: dict[str, Any]) -> Mixture:
    return Mixture(parse_settings(MixtureConfig, raw))


def graded(mixed: Mixture, text: str, source: str, answer: str = "4", answer_type: str = "number") -> RewardResult:
    return mixed.score(text, answer, answer_type, sample={"source": source})


def test_a_weighted_mean() -> None:
    words = " ".join(f"w{number}" for number in range(399))
    long = f"<think>{words} </think><answer>4</answer>"  # the first tag is of the first word, the others are the 400th
    result = graded(mixture(BRIEF), long, "any")
    assert result.components == {"accuracy": 1.0, "form": 1.0, "brevity": 0.5, "raw": result.value, "outcome": 1.0}
    assert result.value == pytest.approx(1.3 / 1.4) and "1.4 = 0.93" in PAGE
    shown = re.search(r"result\.components  # (\{.*\})", PAGE)
    assert shown and graded(mixture(BRIEF), FORMED, "any").components == yaml.safe_load(shown[1])


def test_tasks() -> None:
    mixed = mixture(TASKS)
    for source, value in (("reasoning-gym/sudoku", 0.0), ("reasoning-gym/chess", 1.0), ("other", 1.0)):
        assert graded(mixed, BARE, source).value == value, source
    assert graded(mixed, BARE, "reasoning-gym/sudoku").components["outcome"] == 0.0
    unmatched = mixture({name: value for name, value in TASKS.items() if name != "default"})
    assert graded(unmatched, BARE, "other").status == "error"


def test_judges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(call: Call, number: int) -> Reply:
        return score(int("four" in call.user or "names its assumptions" in call.system))

    monkeypatch.setenv("JUDGE_API_KEY", "k")
    with serve(script) as server:
        judge = JUDGED["judges"]["default"] | {"url": server.url, "cache": str(tmp_path / "judge.sqlite")}
        with mixture(JUDGED | {"judges": {"default": judge}}) as mixed:
            assert graded(mixed, "<answer>4</answer>", "virl39k").components["rule"] == 1.0 and not server.calls
            right = graded(mixed, "<answer>four, as said</answer>", "virl39k")
            assert (right.components["rule"], right.value, len(server.calls)) == (0.0, 1.0, 3)  # three votes
            assert graded(mixed, "<answer>An essay.</answer>", "essays").value == 1.0
            by_type = graded(mixed, "<answer>four</answer>", "other", answer_type="judge")
            assert by_type.value == 1.0
            server.script = lambda call, number: Reply(status=400)
            assert graded(mixed, "<answer>five</answer>", "virl39k").value == 0.0  # an optional judge
            assert graded(mixed, "<answer>Another.</answer>", "essays").status == "error"


def test_scales() -> None:
    mixed = mixture(SCALED)
    # IoU 3/4 in bounds of 0.2 and 0.9: 0.55 / 0.7; the outcome is the only `auto` part, as it is
    box = mixed.score("<answer>[0,0,100,75]</answer>", "[0,0,100,100]", "bbox")
    assert (box.value, box.components["outcome"]) == (pytest.approx(0.55 / 0.7), 0.75)
    texts = ["<answer>abcd</answer>", "<answer>abxy</answer>"] * 32
    results = mixed.score_many([Request(text, "abcd", "any", sample={"source": "omniscience/1"}) for text in texts])
    # facts 1 and 1/2, length 1: raw 1 and 0.7 / 1.2, as often the one as the other, so that they become 1 and -1
    assert [result.value for result in results[:2]] == [pytest.approx(1.0), pytest.approx(-1.0)]
    assert [result.components["raw"] for result in results[:2]] == [1.0, pytest.approx(0.7 / 1.2)]
    assert [result.components["outcome"] for result in results[:2]] == [1.0, 0.5]


def test_the_run_config() -> None:
    config = parse_config(RewardConfig, LIMITS["rewards"])
    assert config.timeouts == {"general-code": 120, "svg-code": 5}
    assert FilterConfig(equal_outcomes="drop").equal_rewards == "drop"
    assert SLOW == {"general-code": 60.0} and "and has 60" in PAGE
