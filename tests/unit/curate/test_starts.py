"""From a profile's store to the order of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from rl.config.base import parse_config
from rl.config.train import TrainConfig
from rl.curate.starts import prompt_source
from rl.data.curriculum import PoolCurriculum
from rl.data.formats import write_samples
from rl.data.gaussian import GaussianCurriculum
from rl.data.store import OrderedPrompts
from rl.errors import DataError

from .conftest import right_of, sample, store

KINDS = {"a": "ocr", "b": "stem", "c": "coding", "d": "grounding"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    samples = [sample(name, problem_type=kind) for name, kind in KINDS.items()]
    store(tmp_path / "profiled", {"a": right_of(2), "b": right_of(5), "c": [1.0, None], "d": right_of(0, 4)})
    return write_samples(samples, tmp_path / "train.parquet")[0]


def config(data: Path, curriculum: dict | None) -> TrainConfig:
    if curriculum is not None:
        curriculum = {"attempts": [str(data.parent / "profiled")], **curriculum}
    raw = {"model": "m", "out": "o", "steps": 9, "seed": 5, "data": {"train": str(data), "curriculum": curriculum}}
    return parse_config(TrainConfig, raw)


def test_without_a_curriculum_prompts_come_in_order(data: Path) -> None:
    assert isinstance(prompt_source(config(data, None), list(KINDS)), OrderedPrompts)


def test_rates_of_the_profile(data: Path) -> None:
    made = prompt_source(config(data, {"kind": "pools"}), ["b", "a", "d", "c"])
    assert isinstance(made, PoolCurriculum) and made.steps == 9
    assert made.prompts.ids == ("b", "a", "d", "c")
    assert made.rates().tolist() == [5 / 8, 2 / 8, 0.0, 1.0]


def test_domains_are_groups_of_problem_types(data: Path) -> None:
    domains = {"groups": {"text": ["stem", "coding"]}, "shares": {"text": 0.75, "ocr": 0.25}}
    made = prompt_source(config(data, {"kind": "gaussian", "domains": domains, "solved_from": 1.0}), list(KINDS))
    assert isinstance(made, GaussianCurriculum) and made.batch == 32
    assert (made.prompts.domains, made.prompts.shares) == (("text", "ocr"), (0.75, 0.25))
    assert made.prompts.domain.tolist() == [1, 0, 0, -1]
    assert {next(made).sample_id for _ in range(20)} == {"a", "b"}  # c is solved, d has no share


def test_prompts_without_attempts(data: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 5 prompts of .* such as 'e'; profile them, or set"):
        prompt_source(config(data, {"kind": "pools"}), [*KINDS, "e"])
    made = prompt_source(config(data, {"kind": "pools", "unprofiled": 0.5}), [*KINDS, "e"])
    assert isinstance(made, PoolCurriculum) and made.rates()[-1] == 0.5
    with pytest.raises(DataError, match="no attempts of policy 'q'"):
        prompt_source(config(data, {"kind": "pools", "policy": "q"}), list(KINDS))
