"""Supervised rows: what is trained, where images stand, and how batches go through the epochs."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.batch.sequences import ImageTable, TrainingSample
from rl.config.data import PromptConfig, SplitConfig, SynthConfig
from rl.config.model import ModelInitConfig, VisionConfig
from rl.config.sft import SFTDataConfig
from rl.data.formats import read_samples, write_samples
from rl.data.synth import generate
from rl.errors import DataError
from rl.models import init
from rl.models.encoder import PromptEncoder
from rl.models.policy import load_policy
from rl.sft.data import SFTRow, batches, epochs, load_rows

PROMPTS = PromptConfig(chat="plain", think="Think.", normal="Answer.", spatial="")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data/train.parquet` of 6 counting and 4 arithmetic rows, and `model`."""
    root = tmp_path_factory.mktemp("sft")
    count = {"counting": 6, "arithmetic": 4}
    generate(SynthConfig(out=str(root / "data"), splits={"train": SplitConfig.model_validate({"count": count})}))
    vision = VisionConfig(depth=1, hidden_size=16, intermediate_size=16, heads=2)
    corpus = str(root / "data" / "train.parquet")
    init.run(
        ModelInitConfig(
            out=str(root / "model"),
            tokenizer_corpus=corpus,
            hidden_size=32,
            intermediate_size=32,
            layers=1,
            vision=vision,
        )
    )
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_policy(folder / "model").model


@pytest.fixture(scope="module")
def encoder(folder: Path) -> PromptEncoder:
    return PromptEncoder(folder / "model", PROMPTS)


def load(path: Path, encoder: PromptEncoder, model: Any, limit: int | None = None, **changes: Any) -> list[SFTRow]:
    config = SFTDataConfig(path=str(path), prompts=PROMPTS, **changes)
    return load_rows(str(path), config, encoder, model, ImageTable(), limit)


def test_the_solution_and_the_end_are_trained_after_the_prompt(
    folder: Path, encoder: PromptEncoder, model: Any
) -> None:
    path = folder / "data" / "train.parquet"
    samples = read_samples(path)
    rows = load(path, encoder, model)
    assert [row.source for row in rows] == ["counting"] * 6 + ["arithmetic"] * 4
    for row, sample in zip(rows, samples, strict=True):
        ids, start = row.sample.input_ids.tolist(), row.sample.prompt_length
        assert ids[-1] == encoder.eos_id
        assert encoder.decode(ids[start:-1]) == sample.extra["solution"]
        question = sample.problem.replace("<image>", "")
        assert encoder.decode(ids[:start]) == f"{question} {'Answer.' if row.source == 'counting' else 'Think.'}"
        assert row.sample.trained.all() and row.sample.trained_tokens == len(ids) - start
        # 64 pixels are 8 x 8 patches, merged 2 x 2: 16 tokens between the start and the end mark.
        assert ids.count(encoder.config.image_token_id) == (16 if row.source == "counting" else 0)
        assert len(row.sample.image_keys) == len(sample.images)
        # An image of 4 x 4 tokens takes 16 places in the text and 4 in the positions.
        saved = 12 if row.source == "counting" else 0
        assert row.sample.position_ids[:, -1].tolist() == [len(ids) - 1 - saved] * 3


def test_sources_and_limit_choose_rows(folder: Path, encoder: PromptEncoder, model: Any) -> None:
    path = folder / "data" / "train.parquet"
    assert {row.source for row in load(path, encoder, model, sources=("arithmetic",))} == {"arithmetic"}
    # Every second of the ten rows: three of the six counting rows and two of the four others.
    assert [row.source for row in load(path, encoder, model, limit=5)] == ["counting"] * 3 + ["arithmetic"] * 2
    with pytest.raises(DataError, match=r"has no rows of sources \('chart',\); set data.sources"):
        load(path, encoder, model, sources=("chart",))


def test_a_row_without_solution_is_named(folder: Path, encoder: PromptEncoder, model: Any, tmp_path: Path) -> None:
    sample = read_samples(folder / "data" / "train.parquet")[0]
    sample.extra["solution"] = None
    path = write_samples([sample], tmp_path / "bad.parquet")[0]
    with pytest.raises(DataError, match=f"row {sample.id} has no solution"):
        load(path, encoder, model)


def test_each_epoch_holds_every_row_once() -> None:
    first = list(islice(epochs(5, 2, seed=0), 5))
    drawn = [row for batch in first for row in batch]
    assert sorted(drawn[:5]) == sorted(drawn[5:]) == [0, 1, 2, 3, 4]
    assert list(islice(epochs(5, 2, seed=0), 5)) == first
    assert [sorted(batch) for batch in islice(epochs(2, 6, seed=1), 1)] == [[0, 0, 0, 1, 1, 1]]


def rows_of(*sources: str) -> list[SFTRow]:
    nothing = np.zeros(0, dtype=np.int64)
    sample = TrainingSample(nothing, 0, np.zeros((3, 0), dtype=np.int64), nothing.astype(bool), ())
    return [SFTRow(sample, source) for source in sources]


def test_weights_set_the_share_of_each_source() -> None:
    rows = rows_of("a", "b", "a", "a", "a", "c")
    drawn = [row for batch in islice(batches(rows, {"a": 2.0, "c": 5.0}, 80, seed=0), 100) for row in batch]
    # Of 8000 draws a gets 2/8, b 1/8 and c 5/8; the standard deviation of a share is below 0.006.
    for numbers, share in (((0, 2, 3, 4), 0.25), ((1,), 0.125), ((5,), 0.625)):
        assert abs(sum(row in numbers for row in drawn) / 8000 - share) < 0.02
    of_a = [row for row in drawn if row in (0, 2, 3, 4)]
    assert sorted(of_a[:4]) == sorted(of_a[4:8]) == [0, 2, 3, 4], "each source goes through epochs of its own"


def test_without_weights_rows_count_alike() -> None:
    drawn = next(iter(batches(rows_of("a", "b", "b"), {}, 3, seed=0)))
    assert sorted(drawn) == [0, 1, 2]


def test_bad_weights_are_refused() -> None:
    with pytest.raises(DataError, match="name x, but the rows are of a, b"):
        batches(rows_of("a", "b"), {"x": 1.0}, 2, seed=0)
    with pytest.raises(ValueError, match="weights name b, which sources leave out"):
        SFTDataConfig(path="x", sources=("a",), weights={"b": 1.0})
    with pytest.raises(ValueError, match="weights must be above 0"):
        SFTDataConfig(path="x", weights={"b": 0.0})
