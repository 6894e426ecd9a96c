"""The store and the endless prompt order."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from rl.config.data import PromptConfig
from rl.data.formats import write_samples
from rl.data.store import OrderedPrompts, SampleStore
from rl.errors import CheckpointError, DataError
from rl.records import Sample


@pytest.fixture
def path(tmp_path: Path, png: bytes) -> Path:
    samples = [
        Sample("a", "<image>?", ("1",), (png,), "general", "any", "one", "normal"),
        Sample("b", "?", ("2",), (), "stem", "any", "two"),
    ]
    return write_samples(samples, tmp_path / "d.parquet")[0]


def test_store(path: Path) -> None:
    store = SampleStore(path, PromptConfig(normal="N", chat="plain", max_pixels=6))
    assert store.ids == ("a", "b") and len(store) == 2
    assert store.sources == {"a": "one", "b": "two"}
    assert store["b"].answers == ("2",)
    assert store.prompt("a", "#") == "#? N"
    assert [pixels.shape for pixels in store.pixels("a")] == [(2, 2, 3)]  # 3 x 4 scaled by sqrt(6 / 12): 2.1 x 2.8
    assert store.pixels("b") == ()
    with pytest.raises(DataError, match="holds no sample 'c'"):
        store["c"]


def test_a_store_without_usable_rows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"id": "a"}\n')
    report: list[Any] = []
    with pytest.raises(DataError, match="holds no usable row"):
        SampleStore(tmp_path / "bad.jsonl", PromptConfig(), on_bad="skip", report=report)
    assert len(report) == 1


IDS = [f"s_{i}" for i in range(7)]


def test_every_epoch_holds_every_id_once_in_its_own_order() -> None:
    refs = list(islice(OrderedPrompts(IDS, seed=1), 21))
    assert [(ref.epoch, ref.position) for ref in refs] == [(e, i) for e in range(3) for i in range(7)]
    epochs = [[ref.sample_id for ref in refs[start : start + 7]] for start in (0, 7, 14)]
    assert all(sorted(epoch) == IDS for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(islice(OrderedPrompts(IDS, seed=1), 21)) == refs
    assert list(islice(OrderedPrompts(IDS, seed=2), 21)) != refs


@pytest.mark.parametrize("taken", [0, 3, 7, 8, 20])
def test_a_restored_order_goes_on_where_it_was(taken: int) -> None:
    whole = list(islice(OrderedPrompts(IDS, seed=4), 30))
    first = OrderedPrompts(IDS, seed=4)
    assert list(islice(first, taken)) == whole[:taken]
    second = OrderedPrompts(IDS, seed=4)
    second.load_state_dict(first.state_dict())
    assert list(islice(second, 30 - taken)) == whole[taken:]


def test_a_state_of_another_run_is_refused() -> None:
    state = OrderedPrompts(IDS, seed=4).state_dict()
    with pytest.raises(CheckpointError, match="other ids"):
        OrderedPrompts(IDS[:-1], seed=4).load_state_dict(state)
    with pytest.raises(CheckpointError, match="seed 4, not 5"):
        OrderedPrompts(IDS, seed=5).load_state_dict(state)


def test_ids_must_be_there_and_unique() -> None:
    with pytest.raises(DataError, match="no prompts"):
        OrderedPrompts([], seed=0)
    with pytest.raises(DataError, match="twice"):
        OrderedPrompts(["a", "a"], seed=0)
