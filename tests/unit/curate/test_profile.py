"""What `rl curate profile` asks for and stores, with a pool that answers from a table. The real pool: integration."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from rl.config.base import parse_config
from rl.config.curate import CurateConfig, ProfileConfig
from rl.config.rollout import SamplingConfig
from rl.curate.attempts import AttemptWriter, Made, made_so_far, read_attempts
from rl.curate.profile import _agree_on_terms, _Maker, _rounds, _without_images, _Work
from rl.data.formats import read_samples, write_samples
from rl.errors import ConfigError, DataError
from rl.eval.runner import attempt_seed
from rl.records import Grades, GroupMeta
from tests.unit.groups import plain_grades

from .conftest import sample

RULE = {"pass_k": 2, "min_pass_at_k": 0.5, "max_pass_at_1": 0.5}


def config(**changes) -> ProfileConfig:
    raw = {"policies": {"p": {"model": "m"}}, "candidates": "c.parquet", "out": "o", "attempts": 8, "seed": 5}
    return parse_config(ProfileConfig, raw | changes)


@dataclass
class Table:
    """Stands where the rollout pool and the reward workers do: attempt i at a sample has the i-th reward."""

    rewards: dict[str, list[float | None]]
    seed: int
    tasks: list[tuple[str, int, int]] = field(default_factory=list)
    broken: str | None = None

    async def generate(self, task: Any) -> tuple[GroupMeta, Any, None]:
        first = task.seed - attempt_seed(self.seed, task.sample_id)
        self.tasks.append((task.sample_id, first, task.n))
        if task.sample_id == self.broken:
            raise DataError("the image can't be decoded")
        lengths, stops = tuple(range(first + 1, first + 1 + task.n)), ("stop",) * task.n
        meta = GroupMeta(task.uid, task.sample_id, "chart", lengths, 9, stops, 0, 0, "w", 0.0, 1.0)
        return meta, (task.sample_id, first, task.n), None

    async def score(self, scoring: Any, evaluation: bool) -> Grades:
        assert evaluation  # attempts are graded by answer type, whatever is trained on
        name, first, count = scoring
        return plain_grades(tuple(self.rewards[name][first : first + count]))

    async def answers(self, scoring: Any, limit: int) -> tuple[str | None, ...]:
        return tuple(f"answer {i}" for i in range(scoring[1], scoring[1] + scoring[2]))


class Silent:
    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount

    def describe(self, text: str) -> None:
        """Nothing is shown."""


async def make(folder, settings: ProfileConfig, table: Table) -> tuple[int, float]:
    """(attempts made, progress shown) of one run over the candidates of the table."""
    with AttemptWriter(folder) as writer:
        done = {name: made for (_, name), made in made_so_far(folder).items()}
        work = [_Work(i, name, done.get(name, Made())) for i, name in enumerate(table.rewards)]
        pending = iter([item for item in work if _rounds(settings, item.made)])
        meter = Silent()
        sources = dict.fromkeys(table.rewards, "chart")
        pool: Any = table
        maker = _Maker(settings, "p", "c", pool, pool, sources, writer, meter, SamplingConfig(max_tokens=4))
        return await maker.drain(pending), meter.done


def stored(folder) -> dict[str, list[tuple[int, float | None, str]]]:
    found: dict[str, list[tuple[int, float | None, str]]] = {}
    for batch in read_attempts([folder], ("id", "attempt", "reward", "answer", "seed", "length")):
        for row in batch.to_pylist():
            assert row["seed"] == attempt_seed(5, row["id"]) + row["attempt"]
            assert row["length"] is None or row["length"] == row["attempt"] + 1
            found.setdefault(row["id"], []).append((row["attempt"], row["reward"], row["answer"]))
    return found


async def test_an_extended_profile_makes_what_is_missing(tmp_path):
    table = Table({"a": [1.0, None, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "b": [0.0] * 8}, seed=5)
    assert await make(tmp_path, config(attempts=3), table) == (6, 6)
    assert await make(tmp_path, config(attempts=3), table) == (0, 0)
    assert await make(tmp_path, config(attempts=5), table) == (4, 4)
    assert table.tasks == [("a", 0, 3), ("b", 0, 3), ("a", 3, 2), ("b", 3, 2)]
    assert stored(tmp_path)["a"] == [(i, table.rewards["a"][i], f"answer {i}") for i in range(5)]


async def test_attempts_end_where_the_fate_is_settled(tmp_path):
    right, wrong = [1.0] * 8, [0.0] * 8
    table = Table({"easy": right, "open": [1.0, 0.0] * 4, "hard": wrong, "late": [1.0] * 4 + [0.0] * 4}, seed=5)
    settings = config(settle_after=5, select=RULE)
    # 5 right of 8 are over one half whatever comes; 3 of 5 and 4 of 5 are not
    assert await make(tmp_path, settings, table) == (5 + 8 + 8 + 8, 32)
    assert {name: len(rows) for name, rows in stored(tmp_path).items()} == {"easy": 5, "open": 8, "hard": 8, "late": 8}
    assert await make(tmp_path, settings, table) == (0, 0)


async def test_a_prompt_that_fails_is_stored_as_such(tmp_path):
    table = Table({"a": [1.0] * 8, "b": [1.0] * 8}, seed=5, broken="a")
    await make(tmp_path, config(attempts=2), table)
    assert stored(tmp_path)["a"] == [(0, None, None), (1, None, None)]
    statuses = {s for b in read_attempts([tmp_path], ("id", "status")) for s in b.column("status").to_pylist()}
    assert statuses == {"failed: the image can't be decoded", "ok"}


def test_rounds_split_where_settling_looks():
    settings = config(settle_after=4, select=RULE)
    assert _rounds(settings, Made()) == [(0, 4), (4, 4)]
    assert _rounds(settings, Made(mask=0b0000_0101)) == [(1, 1), (3, 1), (4, 4)]
    assert _rounds(settings, Made(mask=0b0011_1111)) == [(6, 2)]
    assert _rounds(config(), Made(mask=0b1)) == [(1, 7)]


def test_attempts_under_other_terms_do_not_mix(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"one")
    terms = tmp_path / "terms.json"
    settings = config(policies={"p": {"model": str(model)}})
    _agree_on_terms(terms, settings)
    _agree_on_terms(terms, settings.model_copy(update={"attempts": 99}))
    assert set(json.loads(terms.read_text())) == {"p"}
    with pytest.raises(ConfigError, match="other seed;"):
        _agree_on_terms(terms, settings.model_copy(update={"seed": 6}))
    (model / "weights").write_bytes(b"two")
    with pytest.raises(ConfigError, match="other model;"):
        _agree_on_terms(terms, settings)
    _agree_on_terms(terms, config(policies={"q": {"model": str(model)}}))


def test_candidates_as_text(tmp_path):
    from .test_clean import png

    picture = png((5, 5, 30, 30))
    write_samples([sample("a", problem="<image>Which?", images=(picture,)), sample("b")], tmp_path / "c.parquet")
    blind = _without_images(config(candidates=str(tmp_path / "c.parquet")), tmp_path / "blind.parquet")
    assert [(s.id, s.problem, s.images) for s in read_samples(blind)] == [("a", "Which?", ()), ("b", "What is b?", ())]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settle_after": 4}, "needs the rule"),
        ({"settle_after": 8, "select": RULE}, "below attempts 8"),
        ({"settle_after": 1, "select": RULE}, "from select.pass_k 2"),
        ({"settle_after": 4, "select": RULE | {"quantiles": {"max_pass_at_1": 0.5}}}, "quantiles"),
        ({"policies": {}}, "at least 1 item"),
    ],
)
def test_settings_that_make_no_sense(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_curate_is_profile_and_select(tmp_path):
    raw = {"model": "m", "candidates": "c", "out": "o", "attempts": 8, "seed": 3, "select": RULE}
    both = parse_config(CurateConfig, raw)
    assert both.profile().policies["policy"].model == "m" and both.profile().attempts == 8
    assert both.profile().settle_after is None and both.profile().seed == 3
    assert both.selection().attempts == ("o",) and both.selection().select == both.select
