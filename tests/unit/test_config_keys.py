"""The reference of keys, and what messages call the place of a mistake."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import pytest
from pydantic import Field

from rl import commands
from rl.cli.configs import find_keys
from rl.config.base import StrictModel, parse_config
from rl.config.keys import Key, keys_of
from rl.config.train import TrainConfig
from rl.errors import ConfigError

TRAIN = {"model": "m", "out": "o", "steps": 1, "data": {"train": "d"}}


class Engine(StrictModel):
    """One engine.

    More about it.
    """

    slots: int = Field(4, ge=1, lt=9)
    """Sequences
    at once."""


class Pools(StrictModel):
    kind: Literal["pools"] = "pools"
    policy: str | None = None
    """Whose."""
    easy: float = 0.5


class Curve(StrictModel):
    kind: Literal["curve"]
    policy: str | None = None
    """Whose."""


class Run(StrictModel):
    out: str
    mode: Literal["fast", "slow"] = "fast"
    engine: Engine = Engine()
    others: dict[str, Engine] = {}
    parts: tuple[Engine, ...] = ()
    plan: Annotated[Pools | Curve, Field(discriminator="kind")] | None = None
    tag: str | float | None = Field(None, description="Any mark.")


def test_every_key_has_its_name_type_default_and_meaning():
    assert list(keys_of(Run)) == [
        Key("out", "text", "required", ""),
        Key("mode", "fast | slow", "fast", ""),
        Key("engine", "section", "", "One engine."),
        Key("engine.slots", "int >= 1 and < 9", "4", "Sequences at once."),
        Key("others", "NAME: section", "{}", "One engine."),
        Key("others.NAME.slots", "int >= 1 and < 9", "4", "Sequences at once."),
        Key("parts", "list of section", "[]", "One engine."),
        Key("parts.N.slots", "int >= 1 and < 9", "4", "Sequences at once."),
        Key("plan", "section | null", "null", ""),
        Key("plan.kind", "pools", "pools", "(kind: pools)"),
        Key("plan.policy", "text | null", "null", "Whose."),
        Key("plan.easy", "float", "0.5", "(kind: pools)"),
        Key("plan.kind", "curve", "required", "(kind: curve)"),
        Key("tag", "text | float | null", "null", "Any mark."),
    ]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"slots": 1}, "slots: unknown key; did you mean engine.slots or others.NAME.slots or parts.N.slots?"),
        ({"plan": {"kind": "pools", "zzz": 1}}, "plan.zzz: unknown key; known keys: easy, kind, policy"),
        ({"plan": {"kind": "pools", "easy": "x"}}, "plan.easy: Input should be a valid number"),
        ({"others": {"a": {"slots": 0}}}, "others.a.slots: Input should be greater"),
        ({"others": {"a": {"slotz": 0}}}, "others.a.slotz: unknown key; did you mean slots?"),
        ({"parts": [{"slots": 9}]}, "parts.0.slots: Input should be less than 9"),
        ({"tag": []}, "tag: Input should be a valid string"),
    ],
)
def test_a_mistake_is_named_as_it_stands_in_the_file(raw, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(Run, {"out": "o"} | raw)
    assert f"\n  {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"lr": 1}, "lr: unknown key; did you mean learner.optimizer.lr?"),
        ({"algo": {"loss": {"name": "gspoo"}}}, "algo.loss.name: Input should be 'gspo'"),
        ({"algo": {"advantages": {"group": "x:"}}}, "algo.advantages.group: String should match"),
    ],
)
def test_the_mistakes_of_a_training_config(raw, said):
    with pytest.raises(ConfigError) as caught:
        parse_config(TrainConfig, TRAIN | raw)
    assert f"\n  {said}" in str(caught.value)


def test_a_section_or_a_part_of_a_name_is_found():
    assert {key.name.rpartition(".")[0] for key in find_keys("train", "learner.optimizer")} == {
        "learner",
        "learner.optimizer",
    }
    assert [key.name for key in find_keys("curate select", "max_pass")] == [
        "select.max_pass_at_1",
        "select.quantiles.max_pass_at_1",
    ]
    with pytest.raises(ConfigError, match="no key or section 'optimiser'; did you mean optimizer"):
        find_keys("train", "optimiser")


@pytest.mark.parametrize(
    "command", ["train", "eval", "sft", "curate", "curate-profile", "curate-select", "curate-clean"]
)
def test_every_key_says_what_it_means(command):
    model = commands.resolve(commands.COMMANDS[command].config)
    told = {key.name: re.sub(r"^\(kind: \w+\)", "", key.meaning) for key in keys_of(model) if key.name != "command"}
    assert [name for name, said in told.items() if not said] == []


def test_the_schema_has_the_same_words():
    schema = TrainConfig.model_json_schema()["$defs"]["OptimizerConfig"]["properties"]
    assert schema["momentum"]["description"] == "Of `muon`'s matrices."
