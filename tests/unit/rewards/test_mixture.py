"""Mixtures by numbers worked by hand: compositions, failures, tasks, scales, state, and their settings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rewards import JudgeConfig, Mixture, Request, RewardPool, UnknownVerifier, registry
from rewards.base import RewardResult, failed, graded
from rewards.judge import JudgePool
from rewards.mixture import MixtureConfig, RecipeBook
from rewards.mixture.scale import Moments, RunningScale
from rewards.mixture.settings import Running
from rewards.settings import SettingsError, load_settings, parse_settings
from tests.unit.rewards.judge_server import Call, Reply, score, serve

ROOT = Path(__file__).parents[3]
HERE = "tests.unit.rewards.test_mixture"
GOOD = "<think>so</think><answer>4</answer>"
BARE = "<answer>4</answer>"

calls: list[str] = []
"""What `stated` was asked, in order."""


def stated(completion: str, answer: str, *, prompt: str | None = None, sample: Any = None) -> RewardResult:
    """A plug-in whose result the sample states under the part's own setting `key`.

    The component `stated` is what was stated, also where that is no grade.
    """
    key = sample["key"]
    calls.append(key)
    value = sample[key]
    return failed(value, "as stated") if isinstance(value, str) else graded(min(max(value, 0.0), 1.0), stated=value)


PLUGINS = {"stated": f"{HERE}:stated"}
AUTO_PART = {"name": "a", "verifier": "auto"}


def part(key: str, **more: Any) -> dict[str, Any]:
    return {"name": key, "verifier": "stated", "settings": {"key": key}, **more}


def mixture(reward: dict[str, Any], **more: Any) -> Mixture:
    raw = {"default": {"reward": reward} | more}
    return Mixture(parse_settings(MixtureConfig, raw), plugins=PLUGINS)


def graded_as(mixed: Mixture, task: str = "t", **values: float | str) -> RewardResult:
    calls.clear()
    return mixed.score(GOOD, "4", "number", sample={"source": task, **values})


def test_a_weighted_mean() -> None:
    mixed = mixture({"weighted": [part("a"), part("b", weight=0.5), part("c", weight=-0.5)]})
    result = graded_as(mixed, a=1.0, b=0.5, c=0.2)
    assert result.value == pytest.approx(0.575)  # (1 + 0.25 - 0.1) / 2
    assert result.components == {
        "a": 1.0,
        "b": 0.5,
        "c": 0.2,
        "raw": pytest.approx(0.575),
        "outcome": pytest.approx(0.575),
    }
    assert graded_as(mixed, a=0.0, b=0.0, c=1.0).value == -0.25


def test_real_verifiers_and_length() -> None:
    mixed = mixture(
        {
            "weighted": [
                {"name": "accuracy", "verifier": "auto", "weight": 3},
                {"name": "form", "verifier": "format"},
                {"name": "short", "length": {"of": "answer", "unit": "characters", "high": 0, "fade_high": 4}},
                {"name": "said", "verifier": "format", "read": "length", "range": [200, 0]},
            ]
        }
    )
    # accuracy 1, form 1, one character of four: 0.75, 35 characters in a range that falls: 1 - 35 / 200
    assert mixed.score(GOOD, "4", "number").components == {
        "accuracy": 1.0,
        "form": 1.0,
        "short": 0.75,
        "said": 0.825,
        "raw": pytest.approx((3 + 1 + 0.75 + 0.825) / 6),
        "outcome": 1.0,
    }
    wrong = mixed.score("<answer>-4</answer>", "4", "number")
    assert (wrong.components["accuracy"], wrong.components["form"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "expected", "asked"),
    [
        ({"g": 1.0, "a": 0.7}, 0.7, ["g", "a"]),
        ({"g": 0.5, "a": 0.7}, 0.7, ["g", "a"]),
        ({"g": 0.4, "a": 0.7}, -0.1, ["g"]),
        ({"g": "timeout", "a": 0.7}, None, ["g"]),
        ({"g": 1.0, "a": "error"}, None, ["g", "a"]),
    ],
)
def test_a_gate(values: dict[str, Any], expected: float | None, asked: list[str]) -> None:
    mixed = mixture({"gate": part("g"), "at_least": 0.5, "then": part("a"), "otherwise": -0.1})
    assert graded_as(mixed, **values).value == expected
    assert calls == asked


@pytest.mark.parametrize(
    ("until", "values", "expected", "asked"),
    [
        ("passed", (1.0, 0.0, 0.0), 1.0, "a"),
        ("passed", (0.0, 1.0, 0.0), 1.0, "ab"),
        ("passed", (0.3, 0.1, 0.2), 0.3, "abc"),
        ("passed", ("error", 1.0, 0.0), 1.0, "ab"),
        ("passed", ("error", 0.0, 0.0), None, "abc"),
        ("passed", (0.2, 0.1, "error"), 0.2, "abc"),  # the last one is optional
        ("failed", (1.0, 1.0, 1.0), 1.0, "abc"),
        ("failed", (1.0, 0.4, 0.0), 0.4, "ab"),
        ("failed", ("timeout", 0.0, 0.0), None, "a"),
        ("failed", (1.0, 1.0, "timeout"), 1.0, "abc"),
    ],
)
def test_a_chain(until: str, values: tuple[Any, ...], expected: float | None, asked: str) -> None:
    mixed = mixture({"chain": [part("a"), part("b"), part("c", optional=True)], "until": until})
    assert graded_as(mixed, **dict(zip("abc", values, strict=True))).value == expected
    assert "".join(calls) == asked


def test_a_failed_part_fails_the_whole_and_says_which() -> None:
    mixed = mixture({"weighted": [part("a"), part("b")]})
    for status in ("timeout", "error", "invalid_gold"):
        result = graded_as(mixed, a=1.0, b=status)
        assert (result.status, result.value, result.detail) == (status, None, "b: as stated")


def test_weights_keep_their_proportions_without_an_optional_part() -> None:
    mixed = mixture({"weighted": [part("a", weight=2), part("b", weight=1), part("c", weight=5, optional=True)]})
    assert graded_as(mixed, a=1.0, b=0.0, c=0.0).value == 0.25
    assert graded_as(mixed, a=1.0, b=0.0, c="error").value == pytest.approx(2 / 3)
    alone = mixture({"weighted": [part("a", optional=True), part("b", optional=True)]})
    assert graded_as(alone, a="timeout", b="error").status == "timeout"


def test_compositions_nest_and_an_optional_gate_that_failed_is_open() -> None:
    inner = {"weighted": [part("a"), part("b")], "weight": 3}
    mixed = mixture({"gate": part("g", optional=True), "then": {"weighted": [inner, part("c")]}})
    assert graded_as(mixed, g=1.0, a=1.0, b=0.0, c=1.0).value == 0.625  # (3 * 0.5 + 1) / 4
    assert graded_as(mixed, g="error", a=1.0, b=0.0, c=1.0).value == 0.625
    assert graded_as(mixed, g=0.0, a=1.0, b=0.0, c=1.0).value == 0.0


def test_no_answer_is_told_apart_where_it_is_worth_nothing() -> None:
    mixed = mixture({"weighted": [{"name": "accuracy", "verifier": "auto"}, {"name": "f", "verifier": "format"}]})
    assert mixed.score("4", "4", "number").status == "no_answer"
    missing = mixture({"name": "x", "verifier": "format", "read": "beauty"}).score(GOOD, "4", "number")
    assert (missing.status, missing.value) == ("error", None)
    assert "no component 'beauty'; the verifier gave brevity, compression, format, length" in missing.detail


def test_tasks_find_their_recipes() -> None:
    raw = {
        "recipes": {"a": {"reward": part("a")}, "b": {"reward": part("b")}},
        "tasks": {"chem/*": "a", "chem/boiling": "b", "chem/m*": "b", "phys_[0-3]": {"reward": part("c")}},
    }
    mixed = Mixture(parse_settings(MixtureConfig, raw), plugins=PLUGINS)
    values = {"a": 0.1, "b": 0.2, "c": 0.3}
    tasks = ["chem/melting", "chem/boiling", "chem/x/y", "phys_2"]
    requests = [Request(GOOD, "4", "number", sample={"source": task, **values}) for task in tasks]
    assert [result.value for result in mixed.score_many(requests)] == [0.1, 0.2, 0.1, 0.3]
    *known, unknown = mixed.score_many([*requests, Request(GOOD, "4", "number", sample={"source": "chem-boiling"})])
    assert [result.value for result in known] == [0.1, 0.2, 0.1, 0.3]
    assert (unknown.status, unknown.value) == ("error", None)
    assert "'chem-boiling' is not known; did you mean chem/boiling" in unknown.detail
    assert "'number'" in mixed.score(GOOD, "4", "number").detail


def test_tasks_without_a_recipe_are_named_before_anything_is_scored() -> None:
    raw: dict[str, Any] = {"tasks": {"chem/*": {"reward": part("a")}, "physics": {"reward": part("a")}}}
    book = RecipeBook(parse_settings(MixtureConfig, raw))
    book.check(["chem/x", "physics"])
    with pytest.raises(SettingsError, match=r"2 of the tasks: 'biology', 'phsyics'\. .* or set `default`"):
        book.check(["phsyics", "chem/x", "biology"])
    with pytest.raises(SettingsError, match=r"12 of the tasks: 't00', .*'t09' and 2 more\. "):
        book.check([f"t{number:02}" for number in range(12)])
    RecipeBook(parse_settings(MixtureConfig, raw | {"default": {"reward": part("a")}})).check(["biology"])


@pytest.mark.parametrize(
    ("reward", "outcome", "values", "expected"),
    [
        # The only `auto` part; 4 is right, so that its value is 1 whatever the others say.
        ({"weighted": [{"name": "acc", "verifier": "auto"}, part("a")]}, None, {"a": 0.0}, 1.0),
        ({"gate": part("g"), "then": {"name": "acc", "verifier": "auto"}, "otherwise": -1}, None, {"g": 1.0}, 1.0),
        ({"gate": part("g"), "then": {"name": "acc", "verifier": "auto"}, "otherwise": -1}, None, {"g": 0.0}, 0.0),
        # In a chain it is not the last word: the whole is.
        ({"chain": [{"name": "acc", "verifier": "auto"}, part("a")], "until": "failed"}, None, {"a": 0.25}, 0.25),
        ({"weighted": [part("a"), part("b")]}, None, {"a": 1.0, "b": 0.0}, 0.5),
        ({"weighted": [part("a"), part("b")]}, "b", {"a": 1.0, "b": 0.0}, 0.0),
        ({"weighted": [part("a"), part("b", optional=True)]}, "b", {"a": 1.0, "b": "timeout"}, None),
    ],
)
def test_the_outcome(reward: dict[str, Any], outcome: str | None, values: dict[str, Any], expected: float) -> None:
    scaled = {"running": {"min_count": 1, "min_std": 0.5}}
    result = graded_as(mixture(reward, outcome=outcome, normalise=scaled), **values)
    assert result.value == 0.0  # the only value so far is its own mean
    assert result.components.get("outcome") == expected


def test_five_thousand_tasks(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    tasks = "\n".join(f'  "task {number}": {{reward: {{name: a, verifier: string}}}}' for number in range(5_000))
    file.write_text(
        f'tasks:\n{tasks}\n  "other *": rest\nrecipes:\n  rest: {{reward: {{name: b, verifier: number}}}}\n'
    )
    mixed = Mixture.from_yaml(file)
    requests = [Request(GOOD, "4", "any", sample={"source": f"task {number}"}) for number in range(0, 5_000, 7)]
    assert {result.value for result in mixed.score_many(requests)} == {1.0}
    assert mixed.score(GOOD, "4.0", "any", sample={"source": "other 1"}).value == 1.0
    text = file.read_text().replace('"task 4321": {reward: {name: a, verifier: string}}', '"task 4321": {rewrad: 3}')
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"tasks\.task 4321: key 'rewrad' is not known; did you mean reward"):
        Mixture.from_yaml(file)


def test_moments_by_hand() -> None:
    moments = Moments()
    expected = [(0.0, 0.0), (0.5, 0.25), (2 / 3, 2 / 9), (0.75, 0.1875)]  # of 0; 0 1; 0 1 1; 0 1 1 1
    for value, (mean, var) in zip([0.0, 1.0, 1.0, 1.0], expected, strict=True):
        moments.add(value, window=100)
        assert (moments.mean, moments.var) == (pytest.approx(mean), pytest.approx(var))
    fading = Moments()
    for value in (0.0, 1.0, 0.0):
        fading.add(value, window=2)
    # the third moves by 1/2 from mean 1/2, var 1/4: mean 1/4, var 1/2 (1/4 + 1/2 * 1/4) = 3/16
    assert (fading.mean, fading.var) == (0.25, 0.1875)


def test_running_scale_by_hand() -> None:
    running = {"running": {"min_count": 4, "min_std": 0.1, "clip": 1.5}}
    mixed = mixture(part("a", read="stated"), normalise=running)

    def scored(*values: float, update: bool = True) -> list[float | None]:
        requests = [Request(GOOD, "4", "number", sample={"source": "t", "a": value}) for value in values]
        results = mixed.score_many(requests, update=update)
        assert [result.components["raw"] for result in results] == list(values)
        return [result.value for result in results]

    assert scored(0.0, 1.0) == [0.0, 1.0]  # too few values yet
    # with 0 1 0 1 the mean is 1/2 and the deviation 1/2
    assert scored(0.0, 1.0) == [pytest.approx(-1.0), pytest.approx(1.0)]
    assert scored(0.75, 2.0, update=False) == [pytest.approx(0.5), 1.5]
    assert scored(0.75, update=False) == [pytest.approx(0.5)]
    assert graded_as(mixed, task="other", a=0.25).value == 0.25  # a task of its own


def test_a_spread_of_nothing_and_no_centre() -> None:
    scale = RunningScale()
    assert scale.normalise("t", [1.0] * 8, Running(min_count=4, min_std=0.2)) == [0.0] * 8
    # 8 times 1 and 8 times 0: mean 1/2, deviation 1/2, not centred
    assert scale.normalise("t", [0.0] * 8 + [1.0], Running(min_count=4, center=False), update=False) == [0.0] * 8 + [
        5.0
    ]
    assert scale.normalise("u", [0.0] * 8 + [1.0] * 8, Running(min_count=4, center=False))[-1] == pytest.approx(2.0)


def test_fixed_range() -> None:
    mixed = mixture(part("a", read="stated"), normalise={"range": [-1, 3]})
    assert [graded_as(mixed, a=value).value for value in (-2.0, -1.0, 0.0, 3.0, 9.0)] == [0.0, 0.0, 0.25, 1.0, 1.0]


def test_failures_do_not_count_in_the_scale() -> None:
    mixed = mixture(part("a"), normalise={"running": {"min_count": 1}})
    graded_as(mixed, a=1.0)
    graded_as(mixed, a="error")
    assert mixed.state_dict()["tasks"] == {"t": [1, 1.0, 0.0]}


def test_a_restored_mixture_goes_on_where_it_stood() -> None:
    settings = {"running": {"min_count": 2, "window": 5}}
    values = [0.1, 0.9, 0.4, 0.35, 1.0, 0.0, 0.7, 0.2]
    whole, first, second = (mixture(part("a"), normalise=settings) for _ in range(3))
    expected = [graded_as(whole, a=value).value for value in values]
    got = [graded_as(first, a=value).value for value in values[:4]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [graded_as(second, a=value).value for value in values[4:]]
    assert got == expected
    for torn in ({}, {"version": 2, "tasks": {}}, {"version": 1, "tasks": {"t": [1, float("nan"), 0.0]}}):
        with pytest.raises(ValueError, match="state"):
            second.load_state_dict(torn)


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    with RewardPool(workers=1, preload=["number", "format"]) as made:
        yield made


def judged(url: str) -> MixtureConfig:
    raw = {
        "judges": {"default": {"url": url, "model": "m", "retries": 0}},
        "default": {
            "reward": {
                "chain": [
                    {"name": "rule", "verifier": "auto"},
                    {"name": "judge", "judge": "default", "rubric": "Be fair.", "optional": True},
                ]
            }
        },
    }
    return parse_settings(MixtureConfig, raw)


async def test_pool_and_judge_work_at_the_same_time(pool: RewardPool) -> None:
    def script(call: Call, number: int) -> Reply:
        return score(int("BEGIN ANSWER" in call.user and "four" in call.user))

    with serve(script) as server, Mixture(judged(server.url), pool=pool) as mixed:
        requests = [
            Request(f"<answer>{said}</answer>", "4", "number") for said in ("4", "a pair of pairs, four in all", "5")
        ]
        results = await mixed.ascore_many(requests)
        assert [result.value for result in results] == [1.0, 1.0, 0.0]
        assert results[0].components == {"rule": 1.0, "raw": 1.0, "outcome": 1.0}
        assert results[1].components == {"rule": 0.0, "judge": 1.0, "raw": 1.0, "outcome": 1.0}
        assert len(server.calls) == 2  # the rule settled the first
        assert "Be fair." in server.calls[0].system
        assert mixed.score_many(requests) == results
        server.script = lambda call, number: Reply(status=400)
        assert (await mixed.ascore("<answer>6</answer>", "4", "number")).value == 0.0  # an optional judge
        by_type = await mixed.ascore(GOOD, "4", "judge")
        assert (by_type.status, by_type.value) == ("error", None)  # the rule's lane is the failed judge


async def test_lanes_run_at_once(pool: RewardPool) -> None:
    released = threading.Event()

    class Waiting(RewardPool):
        def __init__(self) -> None:
            self._plugins = {}

        async def ascore_many(self, requests: Any) -> list[RewardResult]:
            results = await pool.ascore_many(requests)
            released.set()  # the judge answers only after this: one after the other would never end
            return results

    def script(call: Call, number: int) -> Reply:
        return score(int(released.wait(20)))

    reward = {"weighted": [{"name": "judge", "judge": "j"}, {"name": "rule", "verifier": "auto"}]}
    with serve(script) as server:
        config = MixtureConfig.model_validate(
            {"judges": {"j": JudgeConfig(url=server.url, model="m")}, "default": {"reward": reward}}
        )
        with Mixture(config, pool=Waiting()) as mixed:
            assert (await mixed.ascore(GOOD, "4", "number")).value == 1.0


def test_unknown_answer_types_raise() -> None:
    mixed = mixture({"name": "a", "verifier": "auto"})
    with pytest.raises(UnknownVerifier, match="did you mean number"):
        mixed.score(GOOD, "4", "nubmer")
    result = mixed.score(GOOD, "4", "judge")
    assert (result.status, result.value) == ("error", None)
    assert "the mixture has none" in result.detail


JUDGED_ROW = Request(GOOD, "4", "judge")


def test_a_plugin_grades_judged_rows_in_place_of_the_judge() -> None:
    raw = {"judges": {"default": {"url": "http://127.0.0.1:9/v1", "model": "m"}}, "default": {"reward": AUTO_PART}}
    with Mixture(parse_settings(MixtureConfig, raw), plugins={"judge": f"{HERE}:stated"}) as mixed:
        row = replace(JUDGED_ROW, sample={"key": "x", "x": 0.5})
        assert mixed.score_many([row])[0].value == 0.5
    named = {"default": {"reward": {"name": "a", "verifier": "judge"}}}
    with Mixture(parse_settings(MixtureConfig, named), plugins={"judge": f"{HERE}:stated"}) as mixed:
        assert mixed.score_many([row])[0].value == 0.5


class Service:
    """A pool with verifiers of its own, as `RemotePool` is one."""

    may_judge = True

    def check_names(self, names: Any) -> None:
        registry.check_names(names, {"theirs": "x:y"})

    def score_many(self, requests: Any) -> list[RewardResult]:
        return [graded(0.25, request.answer_type) for request in requests]

    async def ascore_many(self, requests: Any) -> list[RewardResult]:
        return self.score_many(requests)


async def test_a_service_grades_judged_rows_and_what_only_it_knows() -> None:
    plain = parse_settings(MixtureConfig, {"default": {"reward": AUTO_PART}})
    with Mixture(plain, pool=Service()) as mixed:
        assert mixed.score_many([JUDGED_ROW])[0].value == 0.25
        assert (await mixed.ascore_plain([JUDGED_ROW]))[0].detail == "judge"
    theirs = parse_settings(MixtureConfig, {"default": {"reward": {"name": "a", "verifier": "theirs"}}})
    with Mixture(theirs, pool=Service()) as mixed:
        assert mixed.score(GOOD, "4", "number").detail == "a: theirs"
    with pytest.raises(SettingsError, match="part a: answer type 'theirs'"):
        Mixture(theirs)
    typo = parse_settings(MixtureConfig, {"default": {"reward": {"name": "a", "verifier": "thiers"}}})
    with pytest.raises(SettingsError, match="did you mean theirs"):
        Mixture(typo, pool=Service())
    with serve(lambda call, number: score(1)) as server, Mixture(judged(server.url), pool=Service()) as mixed:
        assert mixed.score_many([JUDGED_ROW])[0].value == 1.0  # the mixture's own judge comes before the service's


def test_judges_can_be_given() -> None:
    with serve(lambda call, number: score(1)) as server:
        config = judged(server.url)
        with JudgePool(config.judges["default"]) as judge:
            Mixture(config, pool=Service(), judges={"default": judge}).close()
            assert judge.score(GOOD, "4").value == 1.0  # still open: it is not the mixture's


def test_the_examples_in_configs() -> None:
    folder = ROOT / "configs" / "rewards"
    assert sorted(path.name for path in folder.iterdir()) == ["judge.yaml", "quickstart.yaml", "science.yaml"]
    assert load_settings(JudgeConfig, folder / "judge.yaml").votes == 3
    config = load_settings(MixtureConfig, folder / "science.yaml")
    without_cache = {name: judge.model_copy(update={"cache": None}) for name, judge in config.judges.items()}
    with Mixture(config.model_copy(update={"judges": without_cache})) as mixed:
        assert isinstance(mixed._judges["default"], JudgePool)
        result = mixed.score(GOOD, "4", "number", sample={"source": "anything"})
        # (1 + 0.1 - 0) / (1 + 0.1 + 0.1)
        assert result.value == pytest.approx(1.1 / 1.2)
        gated = mixed.score(BARE, "4", "math-expressions", sample={"source": "virl39k"})
        assert (gated.value, gated.components) == (0.0, {"form": 0.0, "raw": 0.0, "outcome": 0.0})
    with Mixture.from_yaml(folder / "quickstart.yaml") as mixed:
        brief = mixed.score(BARE, "4", "number", sample={"prompt_type": "normal"})
        assert brief.value == 1.0
        # 35 characters: 15 of the 60 beyond 20
        assert mixed.score(GOOD, "4", "number").components["brevity"] == 0.75
