"""Reading, overriding, validating and writing configs."""

from __future__ import annotations

from typing import Literal

import pytest
import yaml

from rl.config.base import (
    StrictModel,
    apply_overrides,
    dump_config,
    dump_yaml,
    load_config,
    parse_config,
    read_yaml,
    save_config,
    set_values,
)
from rl.config.placeholders import fill, unfilled
from rl.config.sft import SFTConfig
from rl.config.train import TrainConfig
from rl.errors import ConfigError


class Optimizer(StrictModel):
    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.95)


class Part(StrictModel):
    path: str
    weight: int = 1


class Run(StrictModel):
    command: Literal["run"] = "run"
    out: str
    steps: int = 10
    optimizer: Optimizer = Optimizer()
    parts: tuple[Part, ...] = ()
    tag: str | float | None = None


@pytest.fixture
def run_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("command: run\nout: here\noptimizer: {lr: 3e-4}\nparts: [{path: a}, {path: b, weight: 2}]\n")
    return path


def test_the_file_then_the_overrides_then_the_defaults(run_file):
    config = load_config(Run, run_file, ["steps=7", "optimizer.betas=[0.5, 0.6]", "steps=8"])
    assert (config.out, config.steps, config.tag) == ("here", 8, None)
    assert (config.optimizer.lr, config.optimizer.betas) == (0.0003, (0.5, 0.6))


def test_an_override_reaches_into_a_list(run_file):
    config = load_config(Run, run_file, ["parts.1.weight=5"])
    assert [part.weight for part in config.parts] == [1, 5]


def test_an_override_fills_a_section_that_is_missing_or_empty():
    assert apply_overrides({"a": None}, ["a.b=1", "c.d=x"]) == {"a": {"b": 1}, "c": {"d": "x"}}


def test_overrides_leave_their_input_alone():
    raw = {"a": {"b": [1, 2]}}
    assert apply_overrides(raw, ["a.b.0=9"]) == {"a": {"b": [9, 2]}}
    assert raw == {"a": {"b": [1, 2]}}


def test_values_are_set_by_dotted_key():
    assert set_values({"a": {"b": 1}}, {"a.c": [2], "d": {"e": 3}}) == {"a": {"b": 1, "c": [2]}, "d": {"e": 3}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "not of the form section.key=value"),
        (".a=1", "not of the form section.key=value"),
        ("out.x=1", "'out' holds a value, not a section"),
        ("parts.2.weight=1", "'2' is no index of a list of 2"),
        ("parts.last.weight=1", "'last' is no index"),
        ("steps=[1", "not valid YAML"),
    ],
)
def test_a_malformed_override_says_why(run_file, override, said):
    with pytest.raises(ConfigError, match="override") as caught:
        load_config(Run, run_file, [override])
    assert said in str(caught.value)


def test_an_unknown_key_names_the_nearest(run_file):
    with pytest.raises(ConfigError, match=r"optimizer\.lrr: unknown key; did you mean lr\?"):
        load_config(Run, run_file, ["optimizer.lrr=1"])


def test_an_unknown_key_with_nothing_near_lists_the_known_ones(run_file):
    with pytest.raises(ConfigError, match=r"parts\.0\.zzz: unknown key; known keys: path, weight"):
        load_config(Run, run_file, ["parts.0.zzz=1"])


def test_all_mistakes_are_said_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_config(Run, {"steps": "many", "stepz": 1}, where="run.yaml")
    text = str(caught.value)
    assert text.startswith("run.yaml can't be used:")
    assert "steps: Input should be a valid integer" in text and "(got 'many')" in text
    assert "stepz: unknown key; did you mean steps?" in text
    assert "out: required" in text and "out=VALUE" in text


def test_a_long_wrong_value_is_cut():
    with pytest.raises(ConfigError) as caught:
        parse_config(Run, {"out": "o", "steps": "9" * 5000 + "x"})
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("out: [", "not valid YAML"),
        ("- out", "holds a list"),
        ("out: a\nsteps: 1\nout: b", "key 'out' is given twice"),
        ("out: a\noptimizer:\n  lr: 1\n  lr: 2", "key 'lr' is given twice"),
    ],
)
def test_a_file_that_is_no_config_says_why(tmp_path, text, said):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)) as caught:
        load_config(Run, path)
    assert said in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(Run, tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        load_config(Run, tmp_path)


def test_merge_keys_may_be_overridden(tmp_path):
    path = tmp_path / "merge.yaml"
    path.write_text("base: &base {lr: 1.0}\none: {<<: *base, lr: 2.0}\ntwo: {<<: *base}\n")
    assert read_yaml(path) == {"base": {"lr": 1.0}, "one": {"lr": 2.0}, "two": {"lr": 1.0}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 0.0001), ("-2E+3", -2000.0), ("1.e2", 100.0), (".5e1", 5.0), ("1e", "1e"), ("e5", "e5"), ("12", 12)],
)
def test_scientific_numbers_are_numbers(text, value):
    found = apply_overrides({}, [f"x={text}"])["x"]
    assert found == value and type(found) is type(value)


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    path = tmp_path / "texts.yaml"
    values = {"a": "1e-4", "b": "12e4567", "c": "1.5", "d": "no", "e": "", "f": 1e-4, "g": float("inf")}
    path.write_text(dump_yaml(values))
    assert read_yaml(path) == values


def test_a_saved_config_loads_as_it_was(tmp_path, run_file):
    config = load_config(Run, run_file, ["tag='1e5'", "optimizer.lr=1e-7"])
    save_config(config, tmp_path / "deep" / "config.yaml")
    assert load_config(Run, tmp_path / "deep" / "config.yaml") == config
    assert yaml.safe_load(dump_config(config))["parts"][1] == {"path": "b", "weight": 2}


def test_configs_are_frozen(run_file):
    with pytest.raises(ValueError, match="frozen"):
        load_config(Run, run_file).steps = 3  # type: ignore[misc]


def test_names_in_braces_are_filled_at_any_depth():
    raw = {"out": "{out}/rl", "seed": "{seed}", "deep": [{"x": "{lr}"}, "s{seed}-{other}"], "n": 1, "{out}": True}
    assert fill(raw, {"out": "runs/q", "seed": 3, "lr": 0.5}) == {
        "out": "runs/q/rl",
        "seed": 3,
        "deep": [{"x": 0.5}, "s3-{other}"],
        "n": 1,
        "{out}": True,
    }


def test_what_a_pipeline_would_fill_is_found():
    raw = {"a": {"b": ["x", "{out}/y"]}, "seed": "{seed}", "prompt": "Answer {question}"}
    assert unfilled(raw) == ["a.b.1", "seed"]


class Limits(StrictModel):
    steps: int = 1
    rates: tuple[float, float] = (0.5, 0.5)
    cached: bool = False
    limit_s: float | None = None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps=true", "true and false are no numbers"),
        ("rates=[true, 0.5]", "true and false are no numbers"),
        ("limit_s=.inf", "finite number"),
        ("limit_s=1e999", "finite number"),
        ("rates=[.nan, 0.5]", "finite number"),
        ("cached=1", "set true or false"),
        ("steps=1:30", "valid integer"),  # 90 in YAML 1.1
    ],
)
def test_values_of_another_kind_are_refused(override, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(Limits, apply_overrides({}, [override]))


def test_times_and_ratios_stay_texts():
    found = apply_overrides({}, ["a=1:30", "b=-1:30:15.5", "c=0x10", "d=1_000"])
    assert found == {"a": "1:30", "b": "-1:30:15.5", "c": 16, "d": 1000}


TRAIN = {"model": "m", "out": "o", "steps": 10, "data": {"train": "d"}}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("learner.optimizer.lr=1e300", "learner.optimizer.lr: .*less than or equal to 10"),
        ("learner.optimizer.betas=[0.9, 1.5]", r"betas\.1: .*less than 1"),
        ("learner.optimizer.betas=[-1, 0.9]", r"betas\.0: .*greater than or equal to 0"),
        ("seed=99999999999999999999999", "seed: .*less than 4294967296"),
        ("seed=-1", "seed: .*greater than or equal to 0"),
        ("probe.threshold=.inf", "probe.threshold: .*finite"),
        ("rewards.timeout_s=1e-9", "rewards.timeout_s: .*0.01"),
        ("rewards.timeouts={number: 1e-9}", "timeouts.number is 1e-09; set seconds"),
        ("learner.optimizer.warmup_steps=11", "warmup_steps 11 is more than the 10 updates"),
    ],
)
def test_settings_that_no_run_could_mean(override, said):
    with pytest.raises(ConfigError, match=said):
        parse_config(TrainConfig, apply_overrides(TRAIN, [override]))


def test_a_warm_up_may_end_with_the_run():
    warm = apply_overrides(TRAIN, ["learner.optimizer.warmup_steps=20", "algo.updates_per_step=2"])
    assert parse_config(TrainConfig, warm).learner.optimizer.warmup_steps == 20


@pytest.mark.parametrize("setting", ["faults.hang_s=10", "labels={pool: a}", "resources={a: 1}"])
def test_settings_of_actors_are_none_of_the_supervised_stages(setting):
    with pytest.raises(ConfigError, match="on this machine without Ray"):
        parse_config(SFTConfig, apply_overrides(TRAIN | {"data": {"path": "d"}}, [f"learner.{setting}"]))


def test_a_message_about_a_section_does_not_repeat_it():
    with pytest.raises(ConfigError) as caught:
        parse_config(TrainConfig, apply_overrides(TRAIN, ["learner.ranks=64"]))
    assert "raise algo.prompts_per_step or lower learner.ranks" in str(caught.value)
    assert "got" not in str(caught.value)
