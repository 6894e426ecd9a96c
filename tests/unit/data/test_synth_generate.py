"""The written splits: same bytes for the same seed, no pair in two splits, readable by `datasets`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rl.config.base import parse_config
from rl.config.data import SynthConfig
from rl.data.formats import read_samples
from rl.data.synth import TASKS, generate
from rl.errors import ConfigError, DataError
from rl.records import Sample


def config_for(out: Path, seed: int = 0, count: int = 12, **changes: object) -> SynthConfig:
    raw = {
        "seed": seed,
        "out": str(out),
        "splits": {name: {"count": dict.fromkeys(TASKS, count)} for name in ("train", "heldout", "eval")},
        **changes,
    }
    return parse_config(SynthConfig, raw)


def pairs(samples: list[Sample]) -> list[tuple[str, tuple[bytes, ...]]]:
    return [(sample.problem, sample.images) for sample in samples]


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    here = generate(config_for(tmp_path / "a"))
    code = (
        "from rl.config.data import SynthConfig; from rl.data.synth import TASKS, generate; "
        f"generate(SynthConfig(seed=0, out={str(tmp_path / 'b')!r}, splits="
        "{n: {'count': dict.fromkeys(TASKS, 12)} for n in ('train', 'heldout', 'eval')}))"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."})
    for name, path in here.items():
        assert path.read_bytes() == (tmp_path / "b" / f"{name}.parquet").read_bytes()
    other = generate(config_for(tmp_path / "c", seed=1))
    assert other["train"].read_bytes() != here["train"].read_bytes()


def test_no_pair_stands_in_two_splits_or_twice_in_one(tmp_path: Path) -> None:
    train = read_samples(generate(config_for(tmp_path / "a", seed=0, count=100))["train"])
    paths = generate(config_for(tmp_path / "b", seed=5, count=60))
    held, evaluation = read_samples(paths["heldout"]), read_samples(paths["eval"])
    sets = [set(pairs(samples)) for samples in (train, held, evaluation)]
    assert [len(found) for found in sets] == [700, 420, 420], "each row is there once"
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    images = [{i for sample in samples for i in sample.images} for samples in (train, held, evaluation)]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]
    operands = [
        {frozenset(s.problem[:-2].replace("-", "+").split("+")) for s in samples if s.source == "arithmetic"}
        for samples in (train, held, evaluation)
    ]
    assert not operands[0] & operands[1] and not operands[0] & operands[2] and not operands[1] & operands[2]
    skeletons = [
        {s.answers[0].partition("<sep>")[0] for s in samples if s.source == "molecule"}
        for samples in (train, held, evaluation)
    ]
    assert not skeletons[0] & skeletons[1] and not skeletons[0] & skeletons[2]


def test_splits_of_one_pool_do_not_overlap_either(tmp_path: Path) -> None:
    splits = {name: {"count": {"arithmetic": 150, "chart": 80}, "pool": "train"} for name in ("sft", "rl")}
    paths = generate(config_for(tmp_path, splits=splits))
    sft, rl = (set(pairs(read_samples(paths[name]))) for name in ("sft", "rl"))
    assert len(sft) == len(rl) == 230 and not sft & rl


def test_long_splits_become_shards_and_stale_ones_go(tmp_path: Path) -> None:
    splits = {"train": {"count": {"arithmetic": 25}}}
    folder = generate(config_for(tmp_path, splits=splits, shard_rows=10))["train"]
    assert sorted(path.name for path in folder.iterdir()) == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert len(read_samples(folder)) == 25
    single = generate(config_for(tmp_path, splits=splits))["train"]
    assert single.name == "train.parquet" and not folder.exists()
    assert len(read_samples(single)) == 25


def test_datasets_shows_images(tmp_path: Path) -> None:
    import datasets

    path = generate(config_for(tmp_path / "out", splits={"eval": {"count": {"counting": 2, "arithmetic": 1}}}))["eval"]
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["images"][0].size == (64, 64)
    assert loaded[2]["images"] == [] and loaded[2]["options"] is None


def test_a_family_that_runs_out_says_how_many_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"asks for 900 rows of arithmetic.*set splits.eval.count.arithmetic"):
        generate(config_for(tmp_path, splits={"eval": {"count": {"arithmetic": 900}}}))


def test_bad_configs_say_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split 'sft' is not named after a pool; set its pool"):
        config_for(tmp_path, splits={"sft": {"count": {"counting": 1}}})
    with pytest.raises(ConfigError, match="asks for no rows"):
        config_for(tmp_path, splits={"train": {"count": {"counting": 0}}})
    with pytest.raises(ConfigError, match="counts"):
        config_for(tmp_path, splits={"train": {"count": {"counts": 1}}})
    with pytest.raises(ConfigError, match="becomes a file name"):
        config_for(tmp_path, splits={"../train": {"count": {"counting": 1}, "pool": "train"}})
